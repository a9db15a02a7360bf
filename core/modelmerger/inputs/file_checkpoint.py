"""A checkpoint whose tensors are in files unchanged, each in one stretch of bytes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from modelmerger.inputs.files import InputFiles
from modelmerger.inputs.handing_out import HandsOut
from modelmerger.values.checkpoint import Checkpoint, Donor, TensorInfo
from modelmerger.values.file_identity import FileIdentity


@frozen(eq=False, repr=False)
class StoredTensor:
    """Where a tensor lies."""

    file: FileIdentity
    """The file that holds all of it."""
    offset: int
    """Where its first byte lies in that file."""
    info: TensorInfo
    """Its dtype and shape, which say how many bytes it has."""


@frozen(eq=False, repr=False)
class FileCheckpoint(HandsOut, Checkpoint):
    """Tensors laid out in files, read by position."""

    name: str
    """The model's, unique in a merge."""
    stored: Mapping[str, StoredTensor]
    """Where each tensor lies, by name."""
    reader: InputFiles
    """What the files are read through."""
    files: tuple[FileIdentity, ...]
    """All files that are read, as they were when they were opened."""
    donor: Donor = field(factory=Donor)
    """What the model has beside its weights."""
    aliases: Mapping[str, str] = field(factory=dict)
    """Names that the files leave out because they are tied to another tensor → the name of that tensor."""
    tensors: Mapping[str, TensorInfo] = field(init=False)
    """The dtype and shape of each tensor, by name."""

    @tensors.default
    def _tensors(self) -> Mapping[str, TensorInfo]:
        return {name: stored.info for name, stored in self.stored.items()}

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Reads the elements from the tensor's file."""
        stored = self.stored[tensor]
        offset, length = stored.info.span(start, stop)
        self.reader.read(stored.file, stored.offset + offset, buffer[:length])

    def read_ranges(self, tensor: str, ranges: Sequence[tuple[int, int]], buffer: memoryview) -> None:
        """Reads them from the tensor's file in one go."""
        if type(self).read is not FileCheckpoint.read:
            super().read_ranges(tensor, ranges, buffer)
            return
        stored, place = self.stored[tensor], 0
        info, elements = stored.info, stored.info.elements
        parts = []
        for start, stop in ranges:
            if not 0 <= start <= stop <= elements:
                raise self.not_there(tensor, start, stop)
            offset, length = info.span(start, stop)
            parts.append((stored.offset + offset, buffer[place : place + length]))
            place += length
        self.reader.read_parts(stored.file, parts)

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        """Tells the system that the elements will be read from the tensor's file soon."""
        stored = self.stored[tensor]
        offset, length = stored.info.span(start, stop)
        self.reader.prefetch(stored.file, stored.offset + offset, length)

    if not TYPE_CHECKING:  # which would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            """Raises `AttributeError` for what a model has, `device` or `generate`, and this has not."""
            reason = "it is tensors in files and no model, as no config.json says which model they make"
            cure = "Put one beside a source and merge again, or beside the tensors and load them with transformers"
            raise AttributeError(f"a checkpoint has no '{name}': {reason}. {cure}.", name=name, obj=self)
