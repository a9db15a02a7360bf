"""A checkpoint whose tensors have other names, and what is to be said of that."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from attrs import frozen
from blake3 import blake3
from modelmerger import Checkpoint, CheckpointView, InputError, Problem, TensorInfo, shown

from modelmerger_plugins.names.wrappers import OF_LAYERS, Unwrapped, unwrapped, writer
from modelmerger_plugins.transformers_classes import foreign_fronts, has_no_module


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


@frozen
class Piece:
    """A stretch of a tensor."""

    tensor: str
    """Its name."""
    start: int
    """The first of its elements."""
    stop: int
    """The element behind the last one."""


class PiecedView(RenamedView):
    """Shows tensors that are made of stretches of a checkpoint's tensors, one stretch behind the other."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        tensors: Mapping[str, TensorInfo],
        pieces: Mapping[str, Sequence[Piece]],
        notes: tuple[Problem, ...],
    ) -> None:
        """tensors: what is shown. pieces: what each is made of, of its dtype, and together of as many elements."""
        super().__init__(checkpoint, {name: pieces[name][0].tensor for name in tensors}, {}, notes)
        self.tensors = dict(tensors)
        self.pieces = pieces
        self.changes = frozenset(
            name for name in tensors if any(piece.tensor in checkpoint.changes for piece in pieces[name])
        )

    @property
    def content(self) -> str:
        """The checkpoint's own, and a digest of what the tensors are made of."""
        made = [[name, [[p.tensor, p.start, p.stop] for p in self.pieces[name]]] for name in self.tensors]
        return blake3(json.dumps([self.checkpoint.content, made]).encode()).hexdigest()

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Reads the elements from the checkpoint, piece by piece."""
        place = 0
        for piece in self._parts(tensor, start, stop):
            length = self.checkpoint.tensors[piece.tensor].span(piece.start, piece.stop)[1]
            self.checkpoint.read(piece.tensor, piece.start, piece.stop, buffer[place : place + length])
            place += length

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        """Tells the checkpoint that these elements will be read soon."""
        for piece in self._parts(tensor, start, stop):
            self.checkpoint.prefetch(piece.tensor, piece.start, piece.stop)

    def bytes_to_read(self, tensor: str, start: int, stop: int) -> int:
        """What the checkpoint reads for these elements."""
        parts = self._parts(tensor, start, stop)
        return sum(self.checkpoint.bytes_to_read(piece.tensor, piece.start, piece.stop) for piece in parts)

    def made_of(self, tensor: str) -> Sequence[tuple[Checkpoint, str]]:
        """What the checkpoint makes all pieces of."""
        return [made for piece in self.pieces[tensor] for made in self.checkpoint.made_of(piece.tensor)]

    def _parts(self, tensor: str, start: int, stop: int) -> Iterator[Piece]:
        before = 0
        for piece in self.pieces[tensor]:
            first, last = (min(max(at - before, 0), piece.stop - piece.start) for at in (start, stop))
            if first < last:
                yield Piece(piece.tensor, piece.start + first, piece.start + last)
            before += piece.stop - piece.start


def without_wrappers(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without what wrappers write into names; itself where there is nothing of that.

    Raises `InputError` where two names would come to one.
    """
    donor = checkpoint.donor
    layers = [part for part in _parts_within(checkpoint) if has_no_module(part, donor.config or {}, donor.directory)]
    found = unwrapped(checkpoint.tensors, layers=layers, fronts=partial(foreign_fronts, donor.config or {}))
    if not found.counts:
        return checkpoint
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
