"""A checkpoint whose tensors lie in files as they are, each in one stretch of bytes."""

from collections.abc import Mapping

from attrs import field, frozen

from modelmerger.inputs.files import InputFiles
from modelmerger.values.checkpoint import Checkpoint, Donor, TensorInfo
from modelmerger.values.file_identity import FileIdentity


@frozen(eq=False)
class StoredTensor:
    """Where a tensor lies."""

    file: FileIdentity
    """The file that holds all of it."""
    offset: int
    """Where its first byte lies in that file."""
    info: TensorInfo
    """Its dtype and shape, which say how many bytes it has."""


@frozen(eq=False)
class FileCheckpoint(Checkpoint):
    """Tensors laid out in files, read by position."""

    name: str
    stored: Mapping[str, StoredTensor]
    """Where each tensor lies, by name."""
    reader: InputFiles
    """What the files are read through."""
    files: tuple[FileIdentity, ...]
    donor: Donor = field(factory=Donor)
    aliases: Mapping[str, str] = field(factory=dict)
    tensors: Mapping[str, TensorInfo] = field(init=False)

    @tensors.default
    def _tensors(self) -> Mapping[str, TensorInfo]:
        return {name: stored.info for name, stored in self.stored.items()}

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        stored = self.stored[tensor]
        offset, length = stored.info.span(start, stop)
        self.reader.read(stored.file, stored.offset + offset, buffer[:length])

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        stored = self.stored[tensor]
        offset, length = stored.info.span(start, stop)
        self.reader.prefetch(stored.file, stored.offset + offset, length)
