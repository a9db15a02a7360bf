"""A checkpoint is a view: names, shapes and dtypes, and a way to read some elements of a tensor into a buffer."""

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from attrs import field, frozen

from modelmerger.inputs.files import FileIdentity, InputFiles
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import Problem


@frozen
class TensorInfo:
    """dtype: as safetensors spells it ("BF16"); shape: one number a dimension, () for a scalar."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * DTYPES[self.dtype].bits // 8

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Offset and length in bytes of elements `start` to `stop`."""
        bits = DTYPES[self.dtype].bits
        return start * bits // 8, (stop - start) * bits // 8


@frozen
class ModelReference:
    """A model as the config names it."""

    path: str
    """Where it lies: as the user wrote it until it is located."""
    name: str
    """Unique among the models."""
    where: str
    """The key of the config that names it, for messages."""
    source: Any = None
    """The module or the mapping of tensors that is the model, and then `path` is but a text about it; None for a path."""
    given: str = ""
    """What the user wrote, once `path` says something else."""

    @property
    def local(self) -> Path:
        """The path on this disk, with the user's home in place of `~`."""
        return user_path(self.path)


def user_path(text: str | Path) -> Path:
    """A path as the user wrote it, with the home directory in place of `~`."""
    return Path(os.path.expanduser(text))


@frozen
class Location:
    """Where a model that the config names lies on this disk."""

    directory: Path
    """Its directory, or its one file, with the user's home in place of `~`."""
    revision: str = ""
    """What its name stands for today, in a form that cannot change (a commit), for names that can come to stand for something
    else; else empty."""
    notes: Sequence[Problem] = ()
    """What the user should know of it."""


@frozen
class Donor:
    """What a model holds beside its weights: where it is, and its config.json (None when there is none).

    generation: the generation_config.json of a model that has no directory.
    """

    directory: Path | None = None
    config: Mapping[str, Any] | None = None
    generation: Mapping[str, Any] | None = None


class Checkpoint(ABC):
    """The tensors of one model, none of them in memory.

    tensors: name → dtype and shape. aliases: names that the file leaves out because they are tied to another tensor
    (`lm_head.weight` → `model.embed_tokens.weight`). files: every file that is read, as it was when it was opened.
    base: the model that this one only changes, as an adapter does; None for a model that stands by itself. changes: the tensors
    of the base that it changes.
    """

    name: str
    tensors: Mapping[str, TensorInfo]
    aliases: Mapping[str, str]
    files: tuple[FileIdentity, ...]
    donor: Donor
    base: "Base | None" = None
    changes: Collection[str] = ()

    @property
    def content(self) -> str:
        """A digest of what no file holds, so that other numbers make another plan. Empty where `files` say it all."""
        return ""

    @property
    def place(self) -> str:
        """Where the user finds this model, for messages."""
        return str(self.donor.directory or (self.files[0].path if self.files else self.name))

    @abstractmethod
    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Fills `buffer` with elements `start` to `stop` of the flattened tensor, in the stored dtype, little endian.

        Safe to call from several threads. Raises `InputChangedError` when the file is no longer what it was.
        """

    def prefetch(self, tensor: str, start: int, stop: int) -> None:  # noqa: B027 (doing nothing is right for most)
        """Tells the system that these elements will be read soon. May do nothing."""


@frozen(eq=False)
class Base:
    """The model that an adapter changes."""

    reference: ModelReference
    """How it was named."""
    location: Location
    """Where it lies."""
    checkpoint: Checkpoint
    """Its tensors."""
    key: str = "base_model"
    """The key of the config by which the user gives it, for messages."""


@frozen(eq=False)
class StoredTensor:
    """Where a tensor lies: its file, the offset of its first byte, dtype and shape."""

    file: FileIdentity
    offset: int
    info: TensorInfo


@frozen(eq=False)
class FileCheckpoint(Checkpoint):
    """Tensors laid out in files, read by position."""

    name: str
    stored: Mapping[str, StoredTensor]
    reader: InputFiles
    files: tuple[FileIdentity, ...]
    donor: Donor = Donor()
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
