"""A checkpoint without what wrappers write into the names of its tensors."""

from modelmerger import Checkpoint, InputError, Problem, shown

from modelmerger_plugins.names.wrappers import OF_LAYERS, Unwrapped, unwrapped, writer
from modelmerger_plugins.transformers_classes import has_no_module


def without_wrappers(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without what wrappers write into names; itself where there is nothing of that.

    Raises `InputError` where two names would come to one.
    """
    layers = any(f".{OF_LAYERS}." in name for name in checkpoint.tensors) and has_no_module(
        OF_LAYERS, checkpoint.donor.config or {}
    )
    found = unwrapped(checkpoint.tensors, layers=layers)
    if not found.counts:
        return checkpoint
    from modelmerger_plugins.names.view import RenamedView

    check_unwrapped(checkpoint, found)
    names = {plain: name for name, plain in found.names.items()}
    aliases = unwrapped(checkpoint.aliases, layers=layers).names
    return RenamedView(checkpoint, names, aliases, (note_of_wrappers(checkpoint, found),))


def check_unwrapped(checkpoint: Checkpoint, found: Unwrapped) -> None:
    """Raises `InputError` where names cannot go without what wrappers write into them."""
    if found.collision is not None:
        first, second = (shown(name, 50) for name in sorted(found.collision, key=len))
        message = (
            f"holds {first} and {second}, which are one without {_parts(found)}. Save the model without its wrapper."
        )
        raise InputError(Problem(message, checkpoint.place))
    if "base_model.model" in found.counts and any(".base_layer." in name for name in found.names):
        message = (
            "holds adapters beside the weights that they change: it is the state dict of a PEFT model. "
            "Save what merge_and_unload() returns."
        )
        raise InputError(Problem(message, checkpoint.place))


def note_of_wrappers(checkpoint: Checkpoint, found: Unwrapped) -> Problem:
    """What was taken off, and who wrote it."""
    verb = "is" if len(found.counts) == 1 else "are"
    changed = sum(name != plain for name, plain in found.names.items())
    message = f"{_parts(found)}, {verb} taken off {changed:,} of {len(found.names):,} names of tensors."
    return Problem(message, checkpoint.place, severity="note")


def _parts(found: Unwrapped) -> str:
    return ", and ".join(f"'{part}.', which {writer(part)} writes" for part in found.counts)
