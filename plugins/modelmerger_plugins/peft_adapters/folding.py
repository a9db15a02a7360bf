"""A base model with adapters folded in, as a checkpoint: each block of rows is made when it is read, and the matrix never exists."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen
from modelmerger import Checkpoint, Donor, NumericError, Problem, TensorInfo
from modelmerger.values.checkpoint import Base
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.text import amount

from modelmerger_plugins.peft_adapters.changes import ROWS, Change, OfExperts
from modelmerger_plugins.peft_adapters.config import AdapterConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KEPT = 16
"""Tensors of an adapter that are held at a time: those of the layers that workers are in."""


@frozen(eq=False)
class Adapter:
    """One adapter, read against its base. changes: base tensor → what is done to it, in order."""

    stored: Checkpoint
    changes: Mapping[str, Sequence[Change]]
    allow_nonfinite: bool
    config: AdapterConfig | None = None
    _held: "OrderedDict[tuple[str, torch.dtype], Tensor]" = field(factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(factory=threading.Lock, repr=False)

    def whole(self, key: str, dtype: "torch.dtype") -> "Tensor":
        """A tensor of the adapter. Raises `NumericError` where it holds a NaN or an infinity that may not pass."""
        with self._lock:
            if (found := self._held.get((key, dtype))) is None:
                info = self.stored.tensors[key]
                found = self.part(key, 0, info.elements, dtype).view(info.shape)
                self._held[key, dtype] = found
                if len(self._held) > KEPT:
                    self._held.popitem(last=False)
            self._held.move_to_end((key, dtype))
            return found

    def finite(self, key: str, dtype: "torch.dtype") -> "Tensor":
        """A tensor of the adapter, not held. Raises `NumericError` for a NaN or an infinity, whatever the options say."""
        info = self.stored.tensors[key]
        values = elements(self.stored, key, 0, info.elements).to(dtype).view(info.shape)
        if not values.isfinite().all():
            raise NumericError(self._nonfinite(key, values, "Repair it: factors with such numbers cannot be merged"))
        return values

    def part(self, key: str, start: int, stop: int, dtype: "torch.dtype") -> "Tensor":
        """Elements of a tensor that is too large to be held. Raises `NumericError` as `whole` does."""
        values = elements(self.stored, key, start, stop).to(dtype)
        if not self.allow_nonfinite and not values.isfinite().all():
            advice = "Repair it, or set allow_nonfinite: true to let them through"
            raise NumericError(self._nonfinite(key, values, advice))
        return values

    def _nonfinite(self, key: str, values: "Tensor", advice: str) -> Problem:
        nans, infinities = int(values.isnan().sum()), int(values.isinf().sum())
        parts = [amount(nans, "NaN")] * bool(nans) + [amount(infinities, "infinity", "infinities")] * bool(infinities)
        return Problem(f"the adapter holds {' and '.join(parts)}. {advice}.", self.stored.place, key)


def elements(checkpoint: Checkpoint, name: str, start: int, stop: int) -> "Tensor":
    """Elements of a stored tensor as a vector of the stored dtype, in memory of its own."""
    import torch
    from modelmerger.values.dtypes import torch_dtype

    info = checkpoint.tensors[name]
    raw = torch.empty(info.span(start, stop)[1], dtype=torch.uint8)
    checkpoint.read(name, start, stop, raw.numpy().data)
    return raw.view(torch_dtype(info.dtype))


@frozen(eq=False)
class Folded(Checkpoint):
    """The base with the changes of some adapters, one after the other.

    wide: whether changed tensors are computed and given in float64; else in float32. tensors that no adapter changes are the
    base's own, bit for bit.
    """

    name: str
    base: Base
    adapters: Sequence[Adapter]
    files: tuple[FileIdentity, ...]
    donor: Donor
    wide: bool
    notes: Sequence[Problem] = ()
    aliases: Mapping[str, str] = field(init=False)
    _changed: Mapping[str, "_Matrix"] = field(init=False, repr=False)
    tensors: Mapping[str, TensorInfo] = field(init=False)

    @aliases.default
    def _aliases(self) -> Mapping[str, str]:
        return self.base.checkpoint.aliases

    @_changed.default
    def _matrices(self) -> Mapping[str, "_Matrix"]:
        found: dict[str, list[tuple[Adapter, Change]]] = {}
        for adapter in self.adapters:
            for tensor, changes in adapter.changes.items():
                found.setdefault(tensor, []).extend((adapter, change) for change in changes)
        last = threading.local()
        return {name: _Matrix(self.base.checkpoint, name, steps, self.wide, last) for name, steps in found.items()}

    @tensors.default
    def _tensors(self) -> Mapping[str, TensorInfo]:
        stored = self.base.checkpoint.tensors
        return {name: self._changed[name].info if name in self._changed else info for name, info in stored.items()}

    @property
    def changes(self) -> Collection[str]:  # type: ignore[override]  # the core has a field here
        return self._changed.keys()

    def steps(self, tensor: str) -> Sequence[tuple[Adapter, Change]]:
        """What is done to a tensor, in order, and by which adapter."""
        return [(adapter, change) for adapter in self.adapters for change in adapter.changes.get(tensor, ())]

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        if tensor in self._changed:
            self._changed[tensor].read(start, stop, buffer)
        else:
            self.base.checkpoint.read(tensor, start, stop, buffer)

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        self.base.checkpoint.prefetch(tensor, start, stop)


class _Matrix:
    """One changed tensor, seen as a matrix, in blocks of 64 rows. last: each thread's block that it made last, of whatever tensor."""

    def __init__(
        self, base: Checkpoint, name: str, steps: Sequence[tuple[Adapter, Change]], wide: bool, last: threading.local
    ) -> None:
        info = base.tensors[name]
        stacked = any(isinstance(change, OfExperts) for _, change in steps)
        rows = math.prod(info.shape[:-1] if stacked else info.shape[:1]) if len(info.shape) > 1 else 1
        self.info = TensorInfo("F64" if wide or info.dtype in ("F32", "F64") else "F32", info.shape)
        self._base, self._name, self._rows, self.columns = base, name, rows, info.elements // max(1, rows)
        self._steps = [(change, _Sources(self, adapter)) for adapter, change in steps]
        self._last = last

    def read(self, start: int, stop: int, buffer: memoryview) -> None:
        import torch

        out = torch.frombuffer(buffer, dtype=torch.uint8).view(self.dtype)
        length = ROWS * self.columns
        for number in range(start // length, -(-stop // length)):
            low, high = max(start, number * length), min(stop, (number + 1) * length)
            block = self._block(number * ROWS).view(-1)
            out[low - start : high - start] = block[low - number * length : high - number * length]

    @property
    def dtype(self) -> "torch.dtype":
        from modelmerger.values.dtypes import torch_dtype

        return torch_dtype(self.info.dtype)

    @property
    def starts(self) -> range:
        return range(0, self._rows, ROWS)

    def original(self, first: int) -> "Tensor":
        last = min(self._rows, first + ROWS)
        values = elements(self._base, self._name, first * self.columns, last * self.columns)
        return values.to(self.dtype).view(last - first, self.columns)

    def _block(self, first: int) -> "Tensor":
        if getattr(self._last, "made", None) != (self._name, first):
            block = self.original(first)
            for change, sources in self._steps:
                block = change.apply(block, first, sources)
            self._last.made, self._last.block = (self._name, first), block
        made: Tensor = self._last.block
        return made


class _Sources:
    """Where one adapter's change of one tensor finds what it needs."""

    def __init__(self, matrix: _Matrix, adapter: Adapter) -> None:
        self._matrix, self._adapter = matrix, adapter
        self._kept: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def whole(self, key: str) -> "Tensor":
        return self._adapter.whole(key, self._matrix.dtype)

    def rows(self, key: str, first: int, last: int) -> "Tensor":
        columns = self._matrix.columns
        return self._adapter.part(key, first * columns, last * columns, self._matrix.dtype)

    def original(self, first: int) -> "Tensor":
        return self._matrix.original(first)

    def starts(self) -> range:
        return self._matrix.starts

    def kept(self, what: str, make: "Callable[[], Tensor]") -> "Tensor":
        with self._lock:
            if what not in self._kept:
                self._kept[what] = make()
            return self._kept[what]
