"""Sums of statistics: blocks in order within a unit, and units in order, so that everyone has the same bits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch

from modelmerger.values.work.units import Statistic

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES: dict[Literal["F64", "I64"], torch.dtype] = {"F64": torch.float64, "I64": torch.int64}


class UnsteadyError(Exception):
    """A statistic has another shape or dtype for another part of its tensor, or sums that no int64 holds."""

    def __init__(self, what: str = "gave another shape or dtype for another block") -> None:
        super().__init__(what)


def as_statistic(values: "Tensor") -> Statistic:
    """A float64 or int64 tensor as plain data."""
    dtype: Literal["F64", "I64"] = "F64" if values.dtype == torch.float64 else "I64"
    content = values.detach().cpu().contiguous().numpy().tobytes()
    return Statistic(dtype, tuple(values.shape), content)


def as_tensor(statistic: Statistic) -> "Tensor":
    """The tensor that `as_statistic` was called on, in memory of its own."""
    if not statistic.content:
        return torch.empty(statistic.shape, dtype=_DTYPES[statistic.dtype])
    return torch.frombuffer(bytearray(statistic.content), dtype=_DTYPES[statistic.dtype]).view(statistic.shape)


class AsTensors(Mapping[int, "list[Tensor]"]):
    """Statistics by tensor, which become tensors only when they are asked for, and are not kept."""

    def __init__(self, totals: Mapping[int, Sequence[Statistic]]) -> None:
        self._totals = totals

    def __getitem__(self, tensor: int) -> "list[Tensor]":
        return list(map(as_tensor, self._totals[tensor]))

    def __iter__(self) -> Iterator[int]:
        return iter(self._totals)

    def __len__(self) -> int:
        return len(self._totals)


Join = Callable[[Sequence["Tensor"]], "Tensor | None"]
"""Makes one statistic of several, which come in order; None says that they are added up."""
JOINED = 8
"""Statistics that are joined at a time."""


class _Sum:
    """The sum of statistics that come in order, or what is made of them otherwise."""

    def __init__(self, join: Join | None) -> None:
        self._join = join
        self._waiting: list[Tensor] = []
        self._total: Tensor | None = None
        self._beyond: Tensor | None = None
        """How often whole numbers went over, less how often under, so that no order of the parts matters."""

    def take(self, values: "Tensor") -> None:
        """Adds a part, which stays as it is. Raises `UnsteadyError`."""
        if self._join is None:
            self._add(values)
            return
        self._waiting.append(values)
        if len(self._waiting) == JOINED:
            self._reduce(self._join)

    def close(self) -> "Tensor | None":
        """The sum of all parts; None where there were none. Raises `UnsteadyError`."""
        if self._join is not None and len(self._waiting) > 1:
            self._reduce(self._join)
        if self._beyond is not None and self._beyond.any():
            raise UnsteadyError("adds up to more than int64 holds; give float64")
        return self._waiting[0] if self._waiting else self._total

    def _reduce(self, join: Join) -> None:
        waiting, self._waiting = self._waiting, []
        if (joined := join(waiting)) is not None:
            self._waiting = [joined]
            return
        self._join = None
        for values in waiting:
            self._add(values)

    def _add(self, values: "Tensor") -> None:
        if self._total is None:
            self._total = values.clone()
        elif self._total.shape != values.shape or self._total.dtype != values.dtype:
            raise UnsteadyError
        else:
            before = self._total if values.dtype == torch.float64 else self._total.clone()
            self._total.add_(values)
            if values.dtype != torch.float64:
                self._count(before, values, self._total)

    def _count(self, before: "Tensor", values: "Tensor", after: "Tensor") -> None:
        wrapped = ((before ^ after) & (values ^ after)) < 0
        if wrapped.any():
            signs = torch.where(values < 0, -1, 1) * wrapped
            self._beyond = signs if self._beyond is None else self._beyond + signs


class OrderedSum:
    """The sum of parts that come in any order, as if they had come in theirs.

    Whole numbers are added as they come. Others wait until all before them are there, so that as few are kept as the
    order is broken by, and so do all that are joined. parts: how many there will be.
    """

    def __init__(self, parts: int, join: Join | None = None) -> None:
        self._parts = parts
        self._joins = join is not None
        self._come: set[int] = set()
        self._nothing: set[int] = set()
        self._waiting: dict[int, Tensor] = {}
        self._next = 0
        self._first: Tensor | None = None
        self._sum = _Sum(join)

    def add(self, part: int, values: "Tensor | None") -> None:
        """Adds a part, once; None adds nothing. Raises `UnsteadyError`."""
        if values is None:
            self._come.add(part)
            self._nothing.add(part)
            self._go_on()
            return
        first = self._first = values if self._first is None else self._first
        if not self._joins and (first.shape != values.shape or first.dtype != values.dtype):
            raise UnsteadyError
        if part in self._come:
            return
        self._come.add(part)
        if values.dtype == torch.int64 and not self._joins:
            self._sum.take(values)
            return
        self._waiting[part] = values
        self._go_on()

    def _go_on(self) -> None:
        while self._next in self._waiting or self._next in self._nothing:
            if self._next in self._waiting:
                self._sum.take(self._waiting.pop(self._next))
            self._next += 1

    @property
    def complete(self) -> bool:
        """Whether all parts have come."""
        return len(self._come) == self._parts

    @property
    def total(self) -> "Tensor | None":
        """The sum, once all parts have come; None where they were nothing. Raises `UnsteadyError`."""
        return self._sum.close() if self.complete else None


def sum_in_order(
    first: int, last: int, measure: Callable[[int], "Tensor | None"], join: Join | None = None
) -> "Tensor | None":
    """The sum of what `measure` returns for the numbers from `first` to before `last`; None adds nothing.

    None where there is nothing else. join: what makes one statistic of several where they are not added up. Raises
    `UnsteadyError`.
    """
    total = _Sum(join)
    for number in range(first, last):
        if (values := measure(number)) is not None:
            total.take(values)
    return total.close()
