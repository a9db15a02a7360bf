"""The hooks: everything a plugin can do, in the order in which a merge calls them.

A plugin is a module (or an instance of a class with `eq=False`) whose functions carry `@hookimpl` and the name of a hook.
It may take any subset of a hook's arguments, in any order, and gives none of them a default. A module that wants another
version of the hooks than `HOOKS_VERSION` says so with `hooks_version = 2` and is refused with a sentence.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from modelmerger.inputs.loading import LoadContext
from modelmerger.planning.updates import Coefficients, MergedUpdates
from modelmerger.values.checkpoint import Checkpoint, Location, ModelReference
from modelmerger.values.errors import Problem
from modelmerger.values.findings import Finding, ValidationReport
from modelmerger.values.labels import LabelScores
from modelmerger.values.layout import Layout, OutputTensor
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings, ValidationSettings
from modelmerger.values.subject import Purpose, Subject
from modelmerger.values.traits import Operation
from modelmerger.values.units import SliceWork

if TYPE_CHECKING:
    import torch

HOOKS_VERSION = 1
PROJECT = "modelmerger"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def declare_options() -> type:
    """Options of an always-on plugin: an attrs class, each field with a default. Every plugin is asked.

    The fields join the `options` of the config; two owners of one name are an error that names both distributions.
    A strategy declares its own options by an attrs class named `Options` in its module instead.

    ```python
    from attrs import frozen
    from modelmerger import hookimpl

    @frozen
    class Options:
        keep_readme: bool = False

    @hookimpl
    def declare_options():
        return Options
    ```
    """


@hookspec(firstresult=True)
def locate_model(reference: ModelReference) -> Location | None:
    """Says where a model that the config names lies on this disk, and brings it there first. None: not mine, ask the next.

    Where no plugin answers, the model lies where its path says. Only what the user wrote is located: a path that stands in a
    model's own files is hostile text, and never comes here. Refuse with `InputError`.

    ```python
    import os
    from modelmerger import Location, hookimpl

    @hookimpl
    def locate_model(reference):
        if not reference.path.startswith("team:"):     # team:chat lies in a folder that everyone has
            return None
        return Location(os.path.join("/models/of-the-team", reference.path.removeprefix("team:")))
    ```
    """


@hookspec(firstresult=True)
def load_model(reference: ModelReference, context: LoadContext) -> Checkpoint | None:
    """Opens a model reference as a checkpoint: names, shapes and dtypes, no weights. None: not mine, ask the next.

    Open files through `context.open_file`, so that they are checked for being regular, inside the model's directory, and
    unchanged until the merge is published. Refuse with `InputError`.

    ```python
    from modelmerger import FileCheckpoint, StoredTensor, TensorInfo, hookimpl

    @hookimpl
    def load_model(reference, context):
        if not reference.path.endswith(".f32"):        # a file that is one vector of float32, nothing else
            return None
        file = context.open_file(reference.path)
        vector = StoredTensor(file, 0, TensorInfo("F32", (file.size // 4,)))
        return FileCheckpoint(reference.name, {"vector": vector}, context.files, (file,))
    ```
    """


@hookspec
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterable[Problem]:
    """Says what is wrong with merging these models, from headers and JSON alone. Every plugin and the strategy are asked.

    `checkpoints` are the models in the order of the config, then the base model if there is one. An error ends the merge
    before anything is written (exit 3); warnings and notes go into the report.

    ```python
    from modelmerger import Problem, hookimpl

    @hookimpl
    def check_compatibility(checkpoints, settings):
        for checkpoint in checkpoints:
            if len(checkpoint.tensors) == 1:
                yield Problem("holds a single tensor. Is this the whole model?", checkpoint.name, severity="warning")
    ```
    """


@hookspec(firstresult=True)
def merge_updates(
    checkpoints: Sequence[Checkpoint], settings: Settings, coefficients: Coefficients
) -> MergedUpdates | None:
    """Merges what the models change of their base, in place of the models. None: not mine, ask the next.

    Called where `peft_config.merge_adapters` is true and every model has a `base`, before the merge is planned. `checkpoints`: as in
    `check_compatibility`; the last one is the base. `coefficients(tensor, shape, gram)` gives one number a model for each tensor
    that changes. The tensors of the answer's checkpoint are then written as they are read, in slices; they may be
    computed only then.

    ```python
    from modelmerger import MergedUpdates, hookimpl

    @hookimpl
    def merge_updates(checkpoints, coefficients):      # of models that change one tensor alone: the one with the most to say
        (name,) = {tensor for model in checkpoints[:-1] for tensor in model.changes}
        shares = coefficients(name, checkpoints[-1].tensors[name].shape, lambda: [])
        chosen = checkpoints[shares.index(max(shares))]
        return MergedUpdates(chosen, {tensor: info.dtype for tensor, info in chosen.tensors.items()}, "model")
    ```
    """


@hookspec(firstresult=True)
def find_coefficients(
    weights: Sequence[float],
    operations: Sequence[Operation],
    options: Any,
    gram: Sequence[Sequence[float]] | None,
    shape: Sequence[int],
) -> Sequence[float] | None:
    """Strategy: the merged tensor is Σ cᵢ·inputᵢ; these are the cᵢ, one an input (the models, then the base if needed).

    This is all that a linear strategy has to say: the engine adds up, in float32 (float64 where float32 or float64 is
    written), beginning with the first product; an input of coefficient 0 is not read, one of coefficient 1 keeps its bits.
    A strategy with this hook also merges the updates of adapters, exactly: the inputs are then the updates, and the base's is zero.

    `weights` and `operations`: one a model; the weights are this tensor's own, also where the config gives them by layer or
    pattern. `gram`: None while the merge is planned; then, for a strategy whose traits say
    `gram=True` and that answered None to the first call, the Gram matrix of the inputs of this tensor (float64).
    `shape`: of the tensor. Raise `ConfigError` for weights that make no sense and `NumericError` where the
    result is undefined.

    ```python
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(2, None))

    @hookimpl
    def find_coefficients(weights):
        return [weight**2 / sum(w**2 for w in weights) for weight in weights]
    ```
    """


@hookspec(firstresult=True)
def measure_tensor(tensors: Sequence["torch.Tensor"], options: Any) -> "torch.Tensor | None":
    """Strategy, optional, with `merge_tensor`: an additive statistic of a block of a tensor, as float64 or int64.

    The engine sums it over fixed blocks in a fixed order, so that neither threads nor slices can move the sum, and hands
    the sum to `merge_tensor` as `measurement`. `tensors`: as for `merge_tensor`.

    ```python
    import torch
    from modelmerger import hookimpl

    @hookimpl
    def measure_tensor(tensors):
        return torch.stack([tensor.double().abs().sum() for tensor in tensors])
    ```
    """


@hookspec(firstresult=True)
def merge_tensor(
    tensors: Sequence["torch.Tensor"],
    weights: Sequence[float],
    operations: Sequence[Operation],
    options: Any,
    measurement: "torch.Tensor | None",
    tensor_name: str,
) -> "torch.Tensor | None":
    """Strategy: slices of the inputs in, the merged slice out, for what is no linear combination.

    `tensors`: float32 (float64 where float32 or float64 is written), all of one shape: a vector for an elementwise
    strategy, (rows, row length) for a rowwise one, the tensor's own shape for a strategy on whole tensors; the models in the
    order of the config, then the base if needed. A model of weight 0 is left out. `weights` and `operations`: one a model that is
    there; the weights are this tensor's own. Returns a new tensor of the same shape and dtype; the engine checks it for
    NaN and infinity and rounds once. The inputs must not be changed or returned.

    ```python
    import torch
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(3, None))

    @hookimpl
    def merge_tensor(tensors):
        return torch.stack(list(tensors)).median(dim=0).values
    ```
    """


@hookspec(firstresult=True)
def finish_tensor(merged: "torch.Tensor", options: Any) -> Mapping[str, int] | None:
    """Strategy, optional: changes the merged slice in place after the check for NaN and infinity, before it is rounded.

    Returns counts for the report; they are summed over all slices. It is not called where the updates of adapters are merged: a strategy
    that has it does so only if its traits say `updates=True`.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def finish_tensor(merged):
        negative = int((merged < 0).sum())
        merged.clamp_(min=0)
        return {"negative values set to zero": negative}
    ```
    """


@hookspec(firstresult=True)
def wants_finish(options: Any) -> bool | None:
    """Strategy, optional: whether its `finish_tensor` is called in this merge. Without this hook it is, for every slice.

    What is finished is looked through for NaN and infinity once more, so a strategy that finishes only if an option says so
    answers here. The answer must follow from the options alone.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def wants_finish(options):
        return options.clamp
    ```
    """


@hookspec(firstresult=True)
def save_model(tensors: Sequence[OutputTensor], max_shard_size: int, use_safetensors: bool, stem: str) -> Layout | None:
    r"""Lays out the files of the merged weights: where each tensor begins, and the bytes around them. Writes nothing.

    The engine then writes tensors at their offsets, in any order. Files are named without folders, are tiled by fixed bytes
    and tensors without holes, and begin each tensor at a multiple of its element size. None: not mine, ask the next.
    `max_shard_size` in bytes and `use_safetensors` are the user's options. `stem`: what the files are named by, "model" or, for an
    adapter, "adapter_model".

    ```python
    from modelmerger import Layout, OutputFile, Placement, hookimpl

    @hookimpl
    def save_model(tensors):
        files = [
            OutputFile(f"{number}.raw", tensor.bytes, (), (Placement(tensor, 0),)) for number, tensor in enumerate(tensors)
        ]
        names = "\n".join(tensor.name for tensor in tensors)
        return Layout("raw", files, {"names.txt": names.encode()})
    ```
    """


@hookspec(firstresult=True)
def run_slices(work: SliceWork) -> bool | None:
    """Executes the units of work, in order of their start, in as many workers as it likes. None: not mine, ask the next.

    `work.run(unit)` does one unit and may be called from several threads; it raises what ended the merge, and then no
    further unit need be started. The built-in runs `work.workers` threads of this process.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def run_slices(work):
        for unit in work.units:
            work.run(unit)
        return True
    ```
    """


@hookspec
def wants_slices(settings: Settings) -> bool:
    """Whether the plugin's `observe_slice` is called in this merge. A plugin without this hook wants every slice.

    Looking at slices costs time, and the inputs of a slice are then in memory at once. The answer
    must follow from the settings alone.

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
) -> Mapping[str, float] | None:
    """Additive statistics of a slice, summed over each tensor for reports and the manifest. Who wants slices is called.

    `tensors` and `merged` as in `merge_tensor`, but all of them vectors; they must not be changed. `inputs`: the place of each of
    `tensors` in the config's models; the base model's is their number. What the merge does not read (a model of weight 0, all but
    the first of a copied tensor) is not there. Tensors that are copied do not come, nor do merges of adapters' updates.

    A sum is the same in every run of a plan if each slice's statistic is exact: whole numbers are added as such. Slices begin at the
    same elements whatever the threads; the slices of elementwise strategies are multiples of `modelmerger.planning.slices.OBSERVED`
    elements from there, but for the last. What is taken over so many elements at a time is therefore the same whatever the slices.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def observe_slice(merged):
        return {"squared norm": float((merged.double() ** 2).sum())}
    ```
    """


@hookspec
def write_sidecars(plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings) -> Mapping[str, bytes]:
    r"""The files beside the weights: path inside the output directory → content. Every plugin is asked; the core writes.

    `checkpoints` as in `check_compatibility`; `plan.donor` is the index of the one whose config and tokenizer are taken.
    Nothing in an input directory may be executed or rendered. Two plugins with one path are an error that names both.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def write_sidecars(plan):
        return {"TENSORS": "\n".join(tensor.name for tensor in plan.tensors).encode()}
    ```
    """


@hookspec(firstresult=True)
def provide_texts(purpose: Purpose) -> Mapping[str, Sequence[str]] | None:
    """The texts that models are scored on, or the prompts they get, where a config names none: label → texts.

    None: not mine, ask the next. The built-in answers with small sets that ship with this package.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def provide_texts(purpose):
        if purpose == "prompting":
            return {"formal": ["How do you do?"], "casual": ["What's up?"]}
    ```
    """


@hookspec(firstresult=True)
def score_labels(texts: Sequence[str]) -> LabelScores | None:
    """How probable each label, such as a register or a topic, is for each text. None: not mine, ask the next.

    A plugin with this hook takes the place of the built-in scorer. `stated` says the scorer's own accuracy; it is shown
    beside every figure made from its answers.

    ```python
    from modelmerger import LabelScores, hookimpl

    @hookimpl
    def score_labels(texts):
        rows = [(1.0, 0.0) if "Yours sincerely" in text else (0.5, 0.5) for text in texts]
        return LabelScores(scorer="one phrase", stated="never measured", labels=("formal", "casual"), rows=rows)
    ```
    """


@hookspec
def validate_model(subject: Subject, settings: ValidationSettings) -> Iterable[Finding]:
    """Validator: looks at a model and yields findings: numbers, each with how it was measured.

    Called once for the merged model, and for each of its sources where the config says `compare_with_sources`. The module says by
    `metrics` what it can find, and which way each is better; `subject` opens the models, one at a time. What cannot be measured is
    said by `UnmeasurableError`, or by a finding whose value is None; the core fills in `model`, `threshold` and `crossed`.

    ```python
    from modelmerger import Finding, hookimpl

    metrics = {"longest_answer": "lower"}

    @hookimpl
    def validate_model(subject):
        lengths = [len(answer.ids) for group in subject.answers().values() for answer in group]
        yield Finding(metric="longest_answer", value=max(lengths), unit="tokens", evidence=f"{len(lengths)} answers")
    ```
    """


@hookspec
def write_companions(directory: Path, manifest: Mapping[str, Any], report: ValidationReport) -> Mapping[str, bytes]:
    """Files about a validation, beside a published model: name, without folders → content. Every plugin is asked.

    `directory`: of the merged model, with what an earlier validation left in it. `manifest`: what its modelmerger.json holds.
    The core writes what is answered, each file beside and renamed over; `validation.json` is its own. A name that the merge
    published and digested is an error, as are two plugins with one name. What models answered is hostile text: escape it.

    ```python
    import html
    from modelmerger import hookimpl

    @hookimpl
    def write_companions(report):
        return {"report.html": f"<pre>{html.escape(str(report))}</pre>".encode()}
    ```
    """
