"""A checkpoint without what wrappers write into the names of its tensors."""

from collections.abc import Sequence
from functools import partial

from modelmerger import Checkpoint, InputError, Problem, shown

from modelmerger_plugins.names.wrappers import OF_LAYERS, Unwrapped, unwrapped, writer
from modelmerger_plugins.transformers_classes import foreign_fronts, has_no_module


def without_wrappers(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without what wrappers write into names; itself where there is nothing of that.

    Raises `InputError` where two names would come to one.
    """
    donor = checkpoint.donor
    layers = [part for part in _parts_within(checkpoint) if has_no_module(part, donor.config or {}, donor.directory)]
    fronts = partial(foreign_fronts, donor.config or {}, directory=donor.directory)
    found = unwrapped(checkpoint.tensors, layers=layers, fronts=fronts)
    if not found.counts:
        return checkpoint
    from modelmerger_plugins.names.view import RenamedView

    check_unwrapped(checkpoint, found)
    names = {plain: name for name, plain in found.names.items()}
    aliases = unwrapped(checkpoint.aliases, layers=layers).names
    return RenamedView(checkpoint, names, aliases, (note_of_wrappers(checkpoint, found),))


def without_layers_of(checkpoint: Checkpoint, others: Sequence[Checkpoint]) -> Checkpoint:
    """The checkpoint without what wrappers of single layers write, where another one has just those names without it.

    Of a class that nobody knows, its own names say nothing of that.
    """
    layers = _parts_within(checkpoint)
    found = unwrapped(checkpoint.tensors, layers=layers)
    changed = {name: plain for name, plain in found.names.items() if name != plain}
    if not changed or found.collision or not any(other.tensors.keys() >= {*changed.values()} for other in others):
        return checkpoint
    from modelmerger_plugins.names.view import RenamedView

    names = {plain: name for name, plain in found.names.items()}
    aliases = unwrapped(checkpoint.aliases, layers=layers).names
    said = checkpoint.notes if isinstance(checkpoint, RenamedView) else ()
    return RenamedView(checkpoint, names, aliases, (*said, note_of_wrappers(checkpoint, found)))


def _parts_within(checkpoint: Checkpoint) -> list[str]:
    return [part for part in OF_LAYERS if any(f".{part}." in name for name in checkpoint.tensors)]


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
