"""A view of a checkpoint: the same model, seen otherwise. What plugins derive their own views from."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve
from blake3 import blake3

from modelmerger.values.checkpoint import Apart, Checkpoint
from modelmerger.values.errors import InputError, MergeError, Problem


class CheckpointView(Checkpoint):
    """Shows another checkpoint, which stays as it is; nothing is copied.

    A view shows everything as it is until a subclass says otherwise: it sets `tensors`, `aliases` or `donor` after
    `super().__init__`, and overrides `read` where the numbers are others. Then it overrides `content` too, which tells
    plans apart: a class that does one without the other is refused with a `TypeError`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        names: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """names: each name in the view → the tensor's name in the checkpoint; None for the checkpoint's own names.

        A tensor may be left out, or be shown under several names. config: the config.json of the view; None for the
        checkpoint's. Raises `ValueError` for a tensor that the checkpoint does not have.
        """
        self.checkpoint = checkpoint
        """What is shown."""
        self.names = dict(names) if names is not None else {name: name for name in checkpoint.tensors}
        """Each name in the view → the tensor's name in the checkpoint."""
        self.name = checkpoint.name
        self.files = checkpoint.files
        self.base = checkpoint.base
        self.merge, self.sources = checkpoint.merge, checkpoint.sources
        self.donor = checkpoint.donor if config is None else evolve(checkpoint.donor, config=config)
        if unknown := [name for name in self.names.values() if name not in checkpoint.tensors]:
            raise ValueError(f"'{checkpoint.name}' has no tensor {unknown[0]!r}")
        self.tensors = {name: checkpoint.tensors[shown] for name, shown in self.names.items()}
        self.changes = frozenset(name for name, shown in self.names.items() if shown in checkpoint.changes)
        places = {shown: name for name, shown in reversed(self.names.items())}
        self.aliases = {
            alias: places[target]
            for alias, target in checkpoint.aliases.items()
            if target in places and alias not in self.names
        }
        self._renamed = names is not None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.read is not CheckpointView.read and cls.content is CheckpointView.content:
            message = "overrides read and not content, so that plans could not tell what it does. Override both"
            raise TypeError(f"{cls.__name__} {message}.")

    @property
    def content(self) -> str:
        """The checkpoint's own, and a digest of the names where those are others."""
        if not self._renamed:
            return self.checkpoint.content
        return blake3(json.dumps([self.checkpoint.content, self.names]).encode()).hexdigest()

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Reads the elements from the checkpoint. Raises `InputError` for elements that the tensor does not have."""
        elements = self.checkpoint.tensors[self.names[tensor]].elements
        if not 0 <= start <= stop <= elements:  # what lies there in the file belongs to another tensor
            raise self.not_there(tensor, start, stop)
        self.checkpoint.read(self.names[tensor], start, stop, buffer)

    def apart(self, tensor: str) -> Apart:
        """As the checkpoint says it, or itself where a subclass reads otherwise."""
        if type(self).read is not CheckpointView.read or tensor not in self.names:
            return super().apart(tensor)
        return self.checkpoint.apart(self.names[tensor])

    def shows(self, tensor: str) -> Sequence[str]:
        """The names of the checkpoint's tensors that a tensor of the view is: one, unless a subclass says otherwise."""
        return (self.names[tensor],)

    def read_ranges(self, tensor: str, ranges: Sequence[tuple[int, int]], buffer: memoryview) -> None:
        """Reads the ranges from the checkpoint, or one by one where a subclass reads otherwise."""
        if type(self).read is not CheckpointView.read:
            super().read_ranges(tensor, ranges, buffer)
            return
        elements = self.checkpoint.tensors[self.names[tensor]].elements
        for start, stop in ranges:
            if not 0 <= start <= stop <= elements:
                raise self.not_there(tensor, start, stop)
        self.checkpoint.read_ranges(self.names[tensor], ranges, buffer)

    def not_there(self, tensor: str, start: int, stop: int) -> MergeError:
        """Names the view, which asks for what the checkpoint does not have."""
        elements = self.checkpoint.tensors[self.names[tensor]].elements
        message = f"a view asks for elements {start:,} to {stop:,} of {elements:,}."
        return InputError(Problem(message, self.place, self.names[tensor]))

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        """Tells the checkpoint that these elements will be read soon."""
        self.checkpoint.prefetch(self.names[tensor], start, stop)

    def bytes_to_read(self, tensor: str, start: int, stop: int) -> int:
        """What the checkpoint reads for these elements; their own bytes where a subclass makes others."""
        if type(self).read is not CheckpointView.read:
            return super().bytes_to_read(tensor, start, stop)
        return self.checkpoint.bytes_to_read(self.names[tensor], start, stop)

    def made_of(self, tensor: str) -> Sequence[tuple[Checkpoint, str]]:
        """What the checkpoint makes the tensor of."""
        return self.checkpoint.made_of(self.names[tensor]) if tensor in self.names else ()
