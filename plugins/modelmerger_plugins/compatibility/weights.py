"""What weights look like: left empty or laid end to end, or quantised where no config says so. One problem for all."""

from collections.abc import Iterator, Mapping, Sequence

from modelmerger import DTYPES, Checkpoint, Problem, amount, quantised_tensors, shown

_FLAT = "flat_param"
"""How the names of rows of numbers end in which FSDP keeps the weights of a module."""


def empty_weights(checkpoints: Sequence[Checkpoint]) -> Iterator[Problem]:
    """An error for models that were saved while their weights lay in parts on several devices."""
    found = {checkpoint: _empty(checkpoint) for checkpoint in checkpoints}
    if affected := [checkpoint for checkpoint in checkpoints if found[checkpoint]]:
        first = affected[0]
        shape = list(first.tensors[found[first][0]].shape)
        message = (
            f"{len(found[first]):,} of {amount(len(first.tensors), 'tensor')} are empty (shape {shape}), as DeepSpeed "
            f"ZeRO-3 leaves them{_likewise(affected)}. Run zero_to_fp32.py beside the checkpoint, and give what it "
            "writes."
        )
        yield Problem(message, first.place, found[first][0])


def flat_weights(checkpoints: Sequence[Checkpoint]) -> Iterator[Problem]:
    """An error for models whose layers FSDP keeps as one row of numbers each, under a name of its own."""
    found = {one: next((name for name in one.tensors if name.endswith(_FLAT)), "") for one in checkpoints}
    if affected := [checkpoint for checkpoint in checkpoints if found[checkpoint]]:
        message = (
            f"is the numbers of several weights end to end, as FSDP keeps them{_likewise(affected)}. Save the model "
            "with FULL_STATE_DICT (accelerate: fsdp_state_dict_type), and give that."
        )
        yield Problem(message, affected[0].place, found[affected[0]])


def pruned_weights(checkpoints: Sequence[Checkpoint]) -> Iterator[Problem]:
    """An error for models whose weights torch keeps as they were before pruning, with a mask beside each."""
    found = {one: [name for name in one.tensors if _is_pruned(name, one)] for one in checkpoints}
    if affected := [checkpoint for checkpoint in checkpoints if found[checkpoint]]:
        names = found[affected[0]]
        message = (
            f"is a weight before pruning, with a mask beside it, one of {len(names):,}{_likewise(affected)}. Call "
            "torch.nn.utils.prune.remove on each pruned module, and save the model again."
        )
        yield Problem(message, affected[0].place, names[0])


def quantised_in_silence(checkpoints: Sequence[Checkpoint]) -> Iterator[Problem]:
    """A warning for models whose config does not say that their weights are quantised."""
    found: Mapping[Checkpoint, Sequence[str]] = {
        checkpoint: quantised_tensors(checkpoint.tensors)
        for checkpoint in checkpoints
        if "quantization_config" not in (checkpoint.donor.config or {})
    }
    if affected := [checkpoint for checkpoint, names in found.items() if names]:
        first = affected[0]
        names = found[first]
        dtypes = ", ".join(sorted({first.tensors[name].dtype for name in names}))
        message = (
            f"{amount(len(names), 'tensor')} {'looks' if len(names) == 1 else 'look'} quantised ({dtypes}) without a "
            f"quantization_config{_likewise(affected)}. They can only be taken over: dequantise the model first."
        )
        yield Problem(message, first.place, names[0], severity="warning")


def _is_pruned(name: str, checkpoint: Checkpoint) -> bool:
    return name.endswith("_orig") and f"{name.removesuffix('_orig')}_mask" in checkpoint.tensors


def _empty(checkpoint: Checkpoint) -> Sequence[str]:
    """Floating tensors without elements, if one of them is called a weight: no weight is empty by design."""
    names = [
        name for name, info in checkpoint.tensors.items() if not info.elements and DTYPES[info.dtype].family == "float"
    ]
    return names if any(name.endswith("weight") for name in names) else ()


def _likewise(affected: Sequence[Checkpoint]) -> str:
    names = ", ".join(f"'{shown(checkpoint.name, 30)}'" for checkpoint in affected[1:3])
    more = ", …" if len(affected) > 3 else ""
    return f", likewise in {names}{more}" if names else ""
