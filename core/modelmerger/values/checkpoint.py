"""A checkpoint is a view: names, shapes and dtypes, and a way to read some elements of a tensor into a buffer."""

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import frozen

from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import MOST_SHOWN, ConfigError, MergeError, Problem
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.model_reference import Location, ModelReference
from modelmerger.values.text import html_table, shown

if TYPE_CHECKING:
    from modelmerger.values.plan import MergePlan


@frozen
class TensorInfo:
    """What a tensor is, without its numbers."""

    dtype: str
    """As safetensors spells it ("BF16")."""
    shape: tuple[int, ...]
    """One number a dimension, () for a scalar."""
    rounded: str = ""
    """The dtype that its numbers have not been rounded to yet, and that is written unless an option says otherwise
    ("BF16" for one that a merge hands on in "F32"); empty: `dtype`."""

    @property
    def written(self) -> str:
        """The dtype that it is written in unless an option says otherwise."""
        return self.rounded or self.dtype

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
    """Its generation_config.json; None where there is none, or none that is a JSON object."""
    vocabulary: Mapping[str, int] | None = None
    """Token → row of the embedding, where a view has the rows in another order than the tokenizer in the directory;
    None: they are as that says."""


_NUMBERS = "[@=<]?([?bBceQqLlIiHhNnfd]|Z[fd])"
"""Forms of the elements of buffers whose bytes are those of numbers on this machine."""
Read = Callable[[Any, str, int, int, memoryview], None]


def _into_bytes(read: Read) -> Read:
    """The method for every kind of buffer."""

    @functools.wraps(read)
    def into_bytes(self: "Checkpoint", tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        if type(self).read is not into_bytes:  # another class of the same object asks, and knows what it does
            read(self, tensor, start, stop, buffer)
            return
        info = self.tensors.get(tensor)
        if info is None:
            raise ConfigError(Problem("is no tensor of this model.", self.place, tensor))
        if not 0 <= start <= stop <= info.elements:
            raise self.not_there(tensor, start, stop)
        read(self, tensor, start, stop, _writable(buffer, info.span(start, stop)[1]))

    return into_bytes


def _writable(buffer: Any, length: int) -> memoryview:
    """The first bytes of a buffer. Raises `ConfigError` for one that cannot be filled."""
    try:
        view = memoryview(buffer)
    except TypeError:
        kind = type(buffer).__name__
        raise ConfigError(f"the buffer must be a bytearray, an array or a memoryview, got {kind}.") from None
    if view.readonly:
        raise ConfigError(f"the buffer ({type(buffer).__name__}) is read-only. Give one that can be written to.")
    if not view.c_contiguous:
        raise ConfigError(f"the buffer ({type(buffer).__name__}) is not contiguous. Give one without gaps.")
    if view.nbytes < length:
        raise ConfigError(f"the buffer has {view.nbytes:,} bytes, and {length:,} are to be read.")
    if view.nbytes == 0:
        return memoryview(bytearray())
    if view.format == "B" and view.ndim == 1:
        return view[:length]
    if not re.fullmatch(_NUMBERS, view.format):
        raise ConfigError(f"the buffer has elements of the form {view.format!r}. Give one of little-endian numbers.")
    return view.cast("B")[:length]


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
    merge: "MergePlan | None" = None
    """The plan of the merge that this model is, and that is not written; None for a model that lies somewhere. What
    views such a model hands this on, and `sources` too."""
    sources: "Sequence[Checkpoint]" = ()
    """What such a merge is made of: the models of its plan."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """A class that reads is handed plain, writable bytes to fill, whatever kind of buffer its callers have."""
        super().__init_subclass__(**keywords)
        if "read" in cls.__dict__:
            cls.read = _into_bytes(cls.__dict__["read"])  # type: ignore[assignment]  # takes more kinds of buffers

    def __repr__(self) -> str:
        size = sum(info.bytes for info in self.tensors.values())
        what = f"{len(self.tensors):,} tensors, {size:,} bytes, from {shown(self.place)}"
        return f"<{type(self).__name__} '{shown(self.name)}': {what}>"

    def _repr_html_(self) -> str:
        listed = list(self.tensors.items())
        rows = [[name, info.dtype, " × ".join(map(str, info.shape)) or "scalar"] for name, info in listed[:MOST_SHOWN]]
        more = [[f"… and {len(listed) - MOST_SHOWN:,} more", "", ""]] if len(listed) > MOST_SHOWN else []
        return html_table(repr(self)[1:-1], [*rows, *more], ["tensor", "dtype", "shape"])

    @property
    def content(self) -> str:
        """A digest of what no file holds, so that other numbers make another plan. Empty where `files` say it all."""
        return ""

    @property
    def place(self) -> str:
        """Where the user finds this model, for messages."""
        return str(self.donor.directory or (self.files[0].path if self.files else self.name))

    def made_of(self, tensor: str) -> "Sequence[tuple[Checkpoint, str]]":
        """The tensors of other checkpoints that a tensor is made of, so that a NaN is blamed on the right model.

        Empty for a tensor that is this checkpoint's own.
        """
        if self.merge is None:
            return ()
        planned = next(planned for planned in self.merge.tensors if planned.name == tensor)
        return [(self.sources[i], planned.name_in(i)) for i in planned.inputs]

    def apart(self, tensor: str) -> "Apart":
        """A tensor as one of another checkpoint, and factors whose product is added; or itself, with none.

        So adapters can be worked with in their factors. Raises what reading the factors raises.
        """
        return Apart(self, tensor)

    @abstractmethod
    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Fills `buffer` with elements `start` to `stop` of the flattened tensor, in the stored dtype, little endian.

        Callers may give anything with writable, contiguous memory (a bytearray, an array, a memoryview of any form),
        large enough: what implements this is handed its bytes, no more than the elements take. Safe to call from
        several threads. Raises `InputChangedError` when the file is no longer what it was, and `ConfigError` for a
        buffer that cannot be filled and for elements that the tensor does not have.
        """

    def read_ranges(self, tensor: str, ranges: "Sequence[tuple[int, int]]", buffer: memoryview) -> None:
        """Fills bytes with several ranges of elements, laid end to end: the same as `read` for one after the other.

        ranges: from the first element to before the last. A class whose calls cost more than their bytes may do
        better. Raises what `read` raises.
        """
        place = 0
        for start, stop in ranges:
            length = self.tensors[tensor].span(start, stop)[1]
            self.read(tensor, start, stop, buffer[place : place + length])
            place += length

    def not_there(self, tensor: str, start: int, stop: int) -> MergeError:
        """What is raised where these elements are asked for, and the tensor does not have them."""
        message = f"has {self.tensors[tensor].elements:,} elements, and elements {start:,} to {stop:,} are asked for."
        return ConfigError(Problem(message, self.place, tensor))

    def bytes_to_read(self, tensor: str, start: int, stop: int) -> int:
        """How many bytes are read of files, or of memory, for elements `start` to `stop`.

        Those of all parts of a tensor add up to those of the whole.
        """
        return self.tensors[tensor].span(start, stop)[1]

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
class Apart:
    """A tensor as the sum of a stored one and products of low rank."""

    checkpoint: Checkpoint
    """What the first term is read from."""
    tensor: str
    """Its name there."""
    factors: Sequence[tuple[Any, Any]] = ()
    """Pairs of matrices of torch, (rows, r) and (r, columns), whose products are added. rows: the tensor's first
    dimension; columns: all the others together. float32, or float64 where the checkpoint computes in that."""


def merges_among(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints that are merges themselves, at any depth; each once, behind those that it is made of."""
    found: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        if checkpoint.merge is not None and checkpoint.merge.digest not in found:
            for inner in merges_among(checkpoint.sources):
                found.setdefault(inner.merge.digest if inner.merge else "", inner)
            found[checkpoint.merge.digest] = checkpoint
    return list(found.values())


def models_behind(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """The models themselves, and for a merge the models that it is made of, at any depth; each once."""
    found: dict[int, Checkpoint] = {}
    for checkpoint in checkpoints:
        behind = models_behind(checkpoint.sources) if checkpoint.merge is not None else [checkpoint]
        found |= {id(model): model for model in behind}
    return list(found.values())
