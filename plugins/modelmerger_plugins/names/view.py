"""A checkpoint whose tensors have other names, and what is to be said of that."""

import json
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen
from blake3 import blake3
from modelmerger import Checkpoint, CheckpointView, Problem, TensorInfo


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

    def shows(self, tensor: str) -> Sequence[str]:
        """The tensors of all pieces."""
        return [piece.tensor for piece in self.pieces[tensor]]

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
