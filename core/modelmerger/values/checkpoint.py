"""A checkpoint is a view: names, shapes and dtypes, and a way to read some elements of a tensor into a buffer."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import frozen

from modelmerger.values.dtypes import DTYPES
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.model_reference import Location, ModelReference


@frozen
class TensorInfo:
    """What a tensor is, without its numbers."""

    dtype: str
    """As safetensors spells it ("BF16")."""
    shape: tuple[int, ...]
    """One number a dimension, () for a scalar."""

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """How many all its elements take."""
        return self.elements * DTYPES[self.dtype].bits // 8

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Offset and length in bytes of elements `start` to `stop`."""
        bits = DTYPES[self.dtype].bits
        return start * bits // 8, (stop - start) * bits // 8


@frozen
class Donor:
    """What a model holds beside its weights."""

    directory: Path | None = None
    """Where it is; None for a model in memory, or a file of weights alone."""
    config: Mapping[str, Any] | None = None
    """Its config.json; None where there is none."""
    generation: Mapping[str, Any] | None = None
    """The generation_config.json of a model that has no directory."""


class Checkpoint(ABC):
    """The tensors of one model, none of them in memory."""

    name: str
    """Unique among the models of a merge."""
    tensors: Mapping[str, TensorInfo]
    """What there is to be read, by name."""
    aliases: Mapping[str, str] = MappingProxyType({})
    """Names that are tied to another tensor and so left out (`lm_head.weight` → `model.embed_tokens.weight`)."""
    files: tuple[FileIdentity, ...] = ()
    """Every file that is read, as it was when it was opened."""
    donor: Donor = Donor()
    """What the model holds beside its weights."""
    base: "Base | None" = None
    """The model that this one only changes, as an adapter does; None for a model that stands by itself."""
    changes: Collection[str] = ()
    """The tensors of the base that it changes."""

    @property
    def content(self) -> str:
        """A digest of what no file holds, so that other numbers make another plan. Empty where `files` say it all."""
        return ""

    @property
    def place(self) -> str:
        """Where the user finds this model, for messages."""
        return str(self.donor.directory or (self.files[0].path if self.files else self.name))

    def sources(self, tensor: str) -> "Sequence[tuple[Checkpoint, str]]":  # noqa: ARG002 (for those that know)
        """The tensors of other checkpoints that a tensor is made of, so that a NaN is blamed on the right model.

        Empty for a tensor that is this checkpoint's own.
        """
        return ()

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
