"""A checkpoint that hands out its tensors by name, as a mapping does."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from modelmerger.inputs.elements import read_elements
from modelmerger.values.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


class HandingOut(Checkpoint, Mapping[str, "Tensor"]):
    """Another checkpoint, whose tensors are read whole when they are asked for: `merged["w"]`, `dict(merged)`.

    A tensor is in memory of its own, on the CPU, in the stored dtype.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        """The one that is read."""
        self.name, self.tensors, self.aliases = checkpoint.name, checkpoint.tensors, checkpoint.aliases
        self.files, self.donor, self.base, self.changes = (
            checkpoint.files,
            checkpoint.donor,
            checkpoint.base,
            checkpoint.changes,
        )
        self.merge, self.sources = checkpoint.merge, checkpoint.sources

    @property
    def content(self) -> str:
        """As that of the checkpoint."""
        return self.checkpoint.content

    @property
    def place(self) -> str:
        """Where the checkpoint is."""
        return self.checkpoint.place

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Reads the elements from the checkpoint."""
        self.checkpoint.read(tensor, start, stop, buffer)

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        """Tells the checkpoint that these elements will be read soon."""
        self.checkpoint.prefetch(tensor, start, stop)

    def bytes_to_read(self, tensor: str, start: int, stop: int) -> int:
        """As many as the checkpoint says."""
        return self.checkpoint.bytes_to_read(tensor, start, stop)

    def __getitem__(self, name: str) -> "Tensor":
        info = self.tensors[name]
        return read_elements(self, name, 0, info.elements).view(info.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)
