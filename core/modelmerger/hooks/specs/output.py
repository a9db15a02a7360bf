"""Hooks about what is written: the layout of the weights, how slices are executed and observed, files beside them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelmerger.hooks.markers import hookspec
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import Problem
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.layout import FilesBeside, Layout, OutputTensor
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings
from modelmerger.values.work.inquiry import Inquiry
from modelmerger.values.work.units import SliceWork

if TYPE_CHECKING:
    import torch


@hookspec
def place_tensors(
    names: Sequence[str], checkpoints: Sequence[Checkpoint], settings: Settings, options: Any
) -> Mapping[str, str] | None:
    """Puts tensors into folders of the output: what their names begin with → the folder. Every plugin is asked.

    In a folder, the tensors are one file of weights by themselves (`FOLDER/model.safetensors`), under the rest of their
    names. They are merged, resumed and verified as all others, and are none of the tensors that the class of the model
    must load (`plan.layout.apart`). Called once the tensors of a whole model are planned, and not for a merge within
    another one. `names` are all their names, `checkpoints` as in `check_compatibility`. Prefixes that no name begins
    with do nothing; none may begin with another one, and no two may have one folder.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def place_tensors():                               # our server loads the layers that guess further tokens by itself
        return {"mtp.": "guessing"}
    ```
    """


@hookspec(firstresult=True)
def save_model(tensors: Sequence[OutputTensor], max_shard_size: int, stem: str, options: Any) -> Layout | None:
    r"""Lays out the files of the merged weights: where each tensor begins, and the bytes around it. Writes nothing.

    The engine writes the tensors at their offsets later, in any order. File names have no folders; for tensors that
    `place_tensors` puts into one, the hook is called by itself, with names as they are there. Fixed bytes and
    tensors tile a file without holes, and each tensor begins at a multiple of its element size. `max_shard_size`, in
    bytes, is the user's option. `stem` is what the files are named by: "model", unless a `Composition` says otherwise.
    None: ask the next plugin.

    ```python
    from modelmerger import Layout, OutputFile, Placement, hookimpl

    @hookimpl
    def save_model(tensors):
        files = [
            OutputFile(f"{number}.raw", tensor.bytes, (), (Placement(tensor, 0),))
            for number, tensor in enumerate(tensors)
        ]
        names = "\n".join(tensor.name for tensor in tensors)
        return Layout("raw", files, {"names.txt": names.encode()})
    ```
    """


@hookspec
def adjust_config(
    name: str,
    config: Mapping[str, Any],
    plan: MergePlan,
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    options: Any,
) -> Mapping[str, Any] | None:
    """Returns a config of the merged model as it should be written. None: it stays as it is.

    Every plugin and the strategy are asked in turn, and each gets what the one before it returned. `name` is
    "config.json" or "generation_config.json"; `config` is the donor's at first, as plain data of JSON. The answer is a
    dict of the same, without new keys that can make a loader run code. Called once the merge is planned, if a whole
    model is written and the donor has such a config; `config` is empty where it has no generation_config.json, and then
    none is written unless a plugin answers with one. `checkpoints`: as in `check_compatibility`. Whatever dtype it
    names is replaced by the written one. For a merge within another one, only the strategy of that merge is asked.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def adjust_config(name, config, settings):
        if name != "config.json":
            return None
        return {**config, "merged_from": [model.name for model in settings.models]}
    ```
    """


@hookspec
def check_output(
    plan: MergePlan,
    checkpoints: Sequence[Checkpoint],
    configs: Mapping[str, Mapping[str, Any]],
    settings: Settings,
    thorough: bool,
    options: Any,
) -> Iterable[Problem | Inquiry]:
    """Yields problems with what will be written, from its names, shapes, dtypes and configs alone.

    Every plugin and the strategy are asked, once the merge is planned: in `check` and `plan` too, and never if
    `check_loading` is false. `plan.tensors` is what will be written; `configs` has the merged model's config.json and
    generation_config.json. An error ends the merge before anything is written (exit status 3). What takes long, or
    imports much, is an `Inquiry`, and is yielded only if `thorough` is true: a process of its own answers it beside the
    merge, and nothing is published before.

    ```python
    from modelmerger import Problem, hookimpl

    @hookimpl
    def check_output(plan):
        if not any(tensor.name.startswith("lm_head.") for tensor in plan.tensors):
            yield Problem("our server wants an LM head of its own, and none is written", severity="warning")
    ```
    """


@hookspec
def measure_output(
    texts: Callable[[], Mapping[str, Sequence[str]]],
    plan: MergePlan,
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    options: Any,
) -> Iterable[Inquiry]:
    """Yields inquiries into figures about what will be written, for the report and the manifest.

    Every plugin is asked, once in each merge and never in `check` and `plan`, before the weights are merged. A process
    of its own answers each inquiry beside the merge, with `Figures` and `Problem`s; a merge does without an answer that
    fails or takes longer than a minute, which a note says. Equal merges must come to equal figures. `texts()` has what
    plugins have to score models on, as `provide_texts` gives it: label → texts; empty where no plugin has any.
    `checkpoints`: as in `check_compatibility`.

    ```python
    from modelmerger import Figures, Inquiry, hookimpl

    def counted(argument):
        yield Figures("words", {"our texts": {label: len(text.split()) for label, text in argument.items()}})

    @hookimpl
    def measure_output(texts):
        argument = {label: " ".join(lines) for label, lines in texts().items()}
        yield Inquiry(f"{__name__}:counted", argument, "how many words there are")
    ```
    """


@hookspec(firstresult=True)
def run_slices(work: SliceWork, options: Any) -> bool | None:
    """Executes the work of a merge, with as many workers as it likes. None: ask the next plugin.

    `work.take()` hands out tasks, which are plain data, and `work.done` takes what came of each: from any thread, in
    any order, and as often as one likes. A worker does tasks one at a time: `work.local()` makes one in this process,
    and `open_worker` one in any other from `work.order()`, which goes to JSON and back. All workers come to the same
    bytes. What a worker raises is given to `work.failed`, which ends the merge.

    The built-in plugin runs `work.workers` threads of this process. A plugin in the group of entry points
    `modelmerger.executors` is imported and asked only if the option `executor` names it.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def run_slices(work):
        worker = work.local()
        while task := work.take():
            work.done(worker.do(task))
        return True
    ```
    """


@hookspec
def wants_slices(settings: Settings, options: Any) -> bool:
    """Whether the plugin's `observe_slice` is called in this merge. A plugin without this hook wants every slice.

    Observing slices costs time, and all inputs of a slice are then in memory at once. The answer must depend on the
    settings and options alone.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def wants_slices(settings):
        return settings.options.verbose
    ```
    """


@hookspec
def observe_slice(
    tensors: Sequence["torch.Tensor"],
    merged: "torch.Tensor",
    tensor_name: str,
    inputs: Sequence[int],
    settings: Settings,
    options: Any,
) -> Mapping[str, float] | None:
    """Returns additive statistics of a slice, which are summed over each tensor for reports and the manifest.

    `tensors` and `merged` are as in `merge_tensor`, but always vectors, and must not be changed. `inputs`: the index of
    each of `tensors` among the config's models; the base model's index is the number of models. Inputs that the merge
    does not read, such as a model of weight 0, are missing. Copied tensors are not observed, and neither are
    compositions. Plugins whose `wants_slices` answers False are not called.

    Sums are the same in every run of a plan if each slice's statistic is exact. Whole numbers are added as whole
    numbers. The first slice of a tensor begins at the same element however many workers there are, and slices of
    elementwise strategies are multiples of `OBSERVED` elements, except the last one. A statistic that is taken over
    `OBSERVED` elements at a time is therefore the same whatever the slices.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def observe_slice(merged):
        return {"squared norm": float((merged.double() ** 2).sum())}
    ```
    """


@hookspec
def write_sidecars(
    plan: MergePlan,
    checkpoints: Sequence[Checkpoint],
    configs: Mapping[str, Mapping[str, Any]],
    settings: Settings,
    options: Any,
) -> Mapping[str, bytes | FileIdentity]:
    r"""Returns the files beside the weights: path inside the output directory → content. Every plugin is asked.

    Called once the merge is planned, before the first write; the core writes the files at the end. Instead of its
    content, the `FileIdentity` of a source's file may be given (`identify_beside` has it): that file is then copied, in
    pieces, and a merge ends with exit status 6 if it is another one by then. `checkpoints`: as in
    `check_compatibility`. `plan.donor` is the index of the one whose config and tokenizer the merged model gets.
    `configs`: name → config, as `adjust_config` left it. Nothing in an input directory may be executed or rendered. If
    two plugins have a file of the same path, that is an error that names both.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def write_sidecars(plan):
        return {"TENSORS": "\n".join(tensor.name for tensor in plan.tensors).encode()}
    ```
    """


@hookspec
def check_files(
    beside: FilesBeside, plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings, options: Any
) -> Iterable[Problem]:
    """Yields problems with what becomes of the files beside the weights of the models. Every plugin is asked.

    Called once these files are planned, before the first write. `beside` says which are copied, which are made anew,
    and which are left behind, of the models of merges within this one too. `checkpoints`: as in `check_compatibility`.
    Errors end the merge; warnings and notes are among those of the merge.

    ```python
    from modelmerger import Problem, hookimpl

    @hookimpl
    def check_files(beside):
        for model, names in beside.left.items():
            if "ETHICS.md" in names:
                yield Problem("is left behind, and this team publishes it with every model", f"{model}/ETHICS.md")
    ```
    """
