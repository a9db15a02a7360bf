"""A view of a model together with other checkpoints that belong to it, such as weights in folders of its directory."""

import json
from collections.abc import Mapping, Sequence

from blake3 import blake3

from modelmerger.planning.views import CheckpointView
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import MergeError


class JoinedView(CheckpointView):
    """Shows a checkpoint as it is, and behind it the tensors of others, each under a prefix.

    Name, directory and config are the checkpoint's own. The files are those of all.
    """

    def __init__(self, checkpoint: Checkpoint, others: Mapping[str, Checkpoint]) -> None:
        """others: what each of their names begins with in the view → the checkpoint.

        Raises `ValueError` for a name that is there already.
        """
        super().__init__(checkpoint)
        self.others = dict(others)
        """The other checkpoints, by their prefixes."""
        self.joined = {f"{prefix}{name}": (one, name) for prefix, one in self.others.items() for name in one.tensors}
        """Each tensor of theirs by its name in the view: the checkpoint, and the name there."""
        if twice := sorted(self.joined.keys() & checkpoint.tensors.keys()):
            raise ValueError(f"'{checkpoint.name}' has a tensor {twice[0]!r} of its own")
        joined = {name: one.tensors[there] for name, (one, there) in self.joined.items()}
        self.tensors = {**self.tensors, **joined}
        self.files = tuple(dict.fromkeys([*self.files, *(file for one in self.others.values() for file in one.files)]))

    @property
    def content(self) -> str:
        """A digest of the contents of all, and of where they lie."""
        others = [[prefix, one.place, one.content] for prefix, one in self.others.items()]
        return blake3(json.dumps([self.checkpoint.content, others]).encode()).hexdigest()

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Reads the elements from the checkpoint that has them. Raises what that raises."""
        one, name = self._place(tensor)
        one.read(name, start, stop, buffer)

    def read_ranges(self, tensor: str, ranges: Sequence[tuple[int, int]], buffer: memoryview) -> None:
        """Reads the ranges from the checkpoint that has them."""
        one, name = self._place(tensor)
        one.read_ranges(name, ranges, buffer)

    def shows(self, tensor: str) -> Sequence[str]:
        """The tensor of the checkpoint; none for a tensor of another one."""
        return () if tensor in self.joined else super().shows(tensor)

    def not_there(self, tensor: str, start: int, stop: int) -> MergeError:
        """What the checkpoint that has the tensor says."""
        one, name = self._place(tensor)
        return one.not_there(name, start, stop)

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        """Tells the checkpoint that has them that these elements will be read soon."""
        one, name = self._place(tensor)
        one.prefetch(name, start, stop)

    def bytes_to_read(self, tensor: str, start: int, stop: int) -> int:
        """What the checkpoint that has them reads for these elements."""
        one, name = self._place(tensor)
        return one.bytes_to_read(name, start, stop)

    def made_of(self, tensor: str) -> Sequence[tuple[Checkpoint, str]]:
        """What the tensor is made of: that of another checkpoint is that checkpoint's own."""
        one, name = self._place(tensor)
        return one.made_of(name) or ([(one, name)] if tensor in self.joined else ())

    def _place(self, tensor: str) -> tuple[Checkpoint, str]:
        return self.joined.get(tensor) or (self.checkpoint, self.names[tensor])
