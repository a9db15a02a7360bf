"""Hooks about what is written: the layout of the weights, who makes the slices and who looks on, the files beside them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelmerger.hooks.markers import hookspec
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.layout import Layout, OutputTensor
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings
from modelmerger.values.units import SliceWork

if TYPE_CHECKING:
    import torch


@hookspec(firstresult=True)
def save_model(tensors: Sequence[OutputTensor], max_shard_size: int, stem: str, options: Any) -> Layout | None:
    r"""Lays out the files of the merged weights: where each tensor begins, and the bytes around them. Writes nothing.

    The engine then writes tensors at their offsets, in any order. Files are named without folders, are tiled by fixed bytes
    and tensors without holes, and begin each tensor at a multiple of its element size. None: not mine, ask the next.
    `max_shard_size` in bytes is the user's option. `stem`: what the files are named by, "model" unless `MergedUpdates` say
    something else.

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
def run_slices(work: SliceWork, options: Any) -> bool | None:
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
def wants_slices(settings: Settings, options: Any) -> bool:
    """Whether the plugin's `observe_slice` is called in this merge. A plugin without this hook wants every slice.

    Looking at slices costs time, and the inputs of a slice are then in memory at once. The answer
    must follow from the settings and options alone.

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
def write_sidecars(
    plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings, options: Any
) -> Mapping[str, bytes]:
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
