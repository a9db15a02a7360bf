"""A checkpoint whose tensors have other names, and what is to be said of that."""

from collections.abc import Mapping

from modelmerger import Checkpoint, CheckpointView, InputError, Problem, shown

from modelmerger_plugins.names.wrappers import Unwrapped, unwrapped, writer


class RenamedView(CheckpointView):
    """Shows a checkpoint with other names. Names of tied tensors that it leaves out are renamed too."""

    def __init__(
        self, checkpoint: Checkpoint, names: Mapping[str, str], aliases: Mapping[str, str], notes: tuple[Problem, ...]
    ) -> None:
        """names: name in the view → name in the checkpoint. aliases: the checkpoint's → what it is in the view."""
        super().__init__(checkpoint, names)
        self.aliases = {aliases.get(alias, alias): target for alias, target in self.aliases.items()}
        self.notes = notes
        """What the user should know."""


def without_wrappers(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without what wrappers write into names; itself where there is nothing of that.

    Raises `InputError` where two names would come to one.
    """
    found = unwrapped(checkpoint.tensors)
    if not found.counts:
        return checkpoint
    check_unwrapped(checkpoint, found)
    names = {plain: name for name, plain in found.names.items()}
    return RenamedView(checkpoint, names, unwrapped(checkpoint.aliases).names, (note_of_wrappers(checkpoint, found),))


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
