"""One changed tensor of the base, seen as a matrix and made in blocks of rows; the whole matrix never exists."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from modelmerger import Checkpoint, TensorInfo, read_elements

from modelmerger_plugins.peft_adapters.changes.change import ROWS, Change
from modelmerger_plugins.peft_adapters.changes.of_experts import OfExperts
from modelmerger_plugins.peft_adapters.folding.adapter import Adapter

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@frozen(eq=False)
class Step:
    """One change of one tensor. A tensor is changed in steps, each of what the one before it made."""

    adapter: Adapter
    """The adapter that makes the change."""
    change: Change
    """What is done."""


class Matrix:
    """A tensor of the base after some steps. Safe from several threads."""

    def __init__(
        self, base: Checkpoint, name: str, steps: Sequence[Step], wide: bool, last_blocks: threading.local
    ) -> None:
        """`wide`: computed and given in float64; else in float32, unless the base's tensor is wider than that.

        `last_blocks`: where each thread keeps the block that it made last, of this tensor or another.
        """
        info = base.tensors[name]
        stacked = any(isinstance(step.change, OfExperts) for step in steps)
        rows = math.prod(info.shape[:-1] if stacked else info.shape[:1]) if len(info.shape) > 1 else 1
        self.info = TensorInfo("F64" if wide or info.dtype in ("F32", "F64") else "F32", info.shape)
        self.columns = info.elements // max(1, rows)
        self._base, self._name, self._rows = base, name, rows
        self._steps = [(step.change, _Sources(self, step.adapter)) for step in steps]
        self._last_blocks = last_blocks

    def read(self, start: int, stop: int, buffer: memoryview) -> None:
        """Fills `buffer` with elements `start` to `stop` of the flattened tensor, in the dtype of `info`."""
        import torch

        out = torch.frombuffer(buffer, dtype=torch.uint8).view(self.dtype)
        length = ROWS * self.columns
        for number in range(start // length, -(-stop // length)):
            low, high = max(start, number * length), min(stop, (number + 1) * length)
            block = self._block(number * ROWS).view(-1)
            out[low - start : high - start] = block[low - number * length : high - number * length]

    def around(self, start: int, stop: int) -> tuple[int, int]:
        """The elements of the base that are read for these, from first to behind the last: those of whole blocks."""
        length = ROWS * self.columns
        return start // length * length, min(-(-stop // length) * length, self.info.elements)

    @property
    def dtype(self) -> "torch.dtype":
        """Of the arithmetic, and of what is given."""
        from modelmerger import torch_dtype

        return torch_dtype(self.info.dtype)

    @property
    def starts(self) -> range:
        """The first rows of all blocks."""
        return range(0, self._rows, ROWS)

    def original(self, first: int) -> "Tensor":
        """The base's block (up to 64 rows, columns) that begins with this row, in the dtype of the arithmetic."""
        last = min(self._rows, first + ROWS)
        values = read_elements(self._base, self._name, first * self.columns, last * self.columns)
        return values.to(self.dtype).view(last - first, self.columns)

    def _block(self, first: int) -> "Tensor":
        if getattr(self._last_blocks, "made", None) != (self._name, first):
            block = self.original(first)
            for change, sources in self._steps:
                block = change.apply(block, first, sources)
            self._last_blocks.made, self._last_blocks.block = (self._name, first), block
        made: Tensor = self._last_blocks.block
        return made


class _Sources:
    """Where one step of one tensor finds what it needs."""

    def __init__(self, matrix: Matrix, adapter: Adapter) -> None:
        self._matrix, self._adapter = matrix, adapter
        self._made: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def tensor(self, key: str) -> "Tensor":
        return self._adapter.tensor(key, self._matrix.dtype)

    def rows(self, key: str, first: int, last: int) -> "Tensor":
        columns = self._matrix.columns
        return self._adapter.elements(key, first * columns, last * columns, self._matrix.dtype)

    def original(self, first: int) -> "Tensor":
        return self._matrix.original(first)

    def starts(self) -> range:
        return self._matrix.starts

    def once(self, what: str, make: "Callable[[], Tensor]") -> "Tensor":
        with self._lock:
            if what not in self._made:
                self._made[what] = make()
            return self._made[what]
