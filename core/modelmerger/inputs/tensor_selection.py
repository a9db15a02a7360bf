"""Tensors of other checkpoints under names of their own, as one checkpoint."""

import json
from collections.abc import Mapping, Sequence

from attrs import field, frozen
from blake3 import blake3

from modelmerger.values.checkpoint import Checkpoint, Donor, TensorInfo
from modelmerger.values.file_identity import FileIdentity


@frozen(eq=False, repr=False)
class TensorSelection(Checkpoint):
    """A checkpoint of tensors that lie in other checkpoints, and are read there.

    >>> layers = TensorSelection("upside_down", {"first": (model, "second"), "second": (model, "first")})
    """

    name: str
    """What messages call it."""
    selected: Mapping[str, tuple[Checkpoint, str]]
    """Name → the checkpoint that has the tensor, and its name there."""
    donor: Donor = field(factory=Donor)
    """What the model holds beside its weights."""
    aliases: Mapping[str, str] = field(factory=dict)
    """Names that are tied to another tensor."""
    tensors: Mapping[str, TensorInfo] = field(init=False)
    """Dtypes and shapes, by name."""
    files: tuple[FileIdentity, ...] = field(init=False)
    """Those of all the checkpoints."""

    @tensors.default
    def _tensors(self) -> Mapping[str, TensorInfo]:
        return {name: checkpoint.tensors[there] for name, (checkpoint, there) in self.selected.items()}

    @files.default
    def _files(self) -> tuple[FileIdentity, ...]:
        return tuple(dict.fromkeys(file for checkpoint, _ in self.selected.values() for file in checkpoint.files))

    @property
    def content(self) -> str:
        """A digest of which tensor is which, and of what no file of the checkpoints holds."""
        rows = [[name, of.name, of.content, there] for name, (of, there) in self.selected.items()]
        return blake3(json.dumps(rows).encode()).hexdigest()

    def made_of(self, tensor: str) -> Sequence[tuple[Checkpoint, str]]:
        """The one tensor that it is."""
        return (self.selected[tensor],)

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Fills `buffer` with elements of a tensor, as `Checkpoint.read` says."""
        checkpoint, there = self.selected[tensor]
        checkpoint.read(there, start, stop, buffer)

    def bytes_to_read(self, tensor: str, start: int, stop: int) -> int:
        """What the checkpoint that has the tensor reads for it."""
        checkpoint, there = self.selected[tensor]
        return checkpoint.bytes_to_read(there, start, stop)

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        """Tells the system that these elements will be read soon."""
        checkpoint, there = self.selected[tensor]
        checkpoint.prefetch(there, start, stop)
