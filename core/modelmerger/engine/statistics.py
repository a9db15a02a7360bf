"""Sums of statistics: blocks in order within a unit, and units in order, so that everyone has the same bits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch

from modelmerger.values.work.units import Statistic

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES: dict[Literal["F64", "I64"], torch.dtype] = {"F64": torch.float64, "I64": torch.int64}


class UnsteadyError(Exception):
    """A statistic has another shape or dtype for another part of its tensor."""


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


class OrderedSum:
    """The sum of parts that come in any order, as if they had come in theirs.

    Whole numbers are added as they come. Others wait until all before them are there, so that as few are kept as the
    order is broken by. parts: how many there will be.
    """

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._come: set[int] = set()
        self._nothing: set[int] = set()
        self._waiting: dict[int, Tensor] = {}
        self._next = 0
        self._sum: Tensor | None = None

    def add(self, part: int, values: "Tensor | None") -> None:
        """Adds a part, once; None adds nothing. Raises `UnsteadyError`."""
        if values is None:
            self._come.add(part)
            self._nothing.add(part)
            self._go_on()
            return
        kept = self._sum if self._sum is not None else next(iter(self._waiting.values()), values)
        if kept.shape != values.shape or kept.dtype != values.dtype:
            raise UnsteadyError
        if part in self._come:
            return
        self._come.add(part)
        if values.dtype == torch.int64:
            self._take(values)
            return
        self._waiting[part] = values
        self._go_on()

    def _go_on(self) -> None:
        while self._next in self._waiting or self._next in self._nothing:
            if self._next in self._waiting:
                self._take(self._waiting.pop(self._next))
            self._next += 1

    def _take(self, values: "Tensor") -> None:
        self._sum = values.clone() if self._sum is None else self._sum.add_(values)

    @property
    def complete(self) -> bool:
        """Whether all parts have come."""
        return len(self._come) == self._parts

    @property
    def total(self) -> "Tensor | None":
        """The sum, once all parts have come; None where they were nothing."""
        return self._sum if self.complete else None


def sum_in_order(first: int, last: int, measure: Callable[[int], "Tensor | None"]) -> "Tensor | None":
    """The sum of what `measure` returns for the numbers from `first` to before `last`; None adds nothing.

    None where there is nothing else. Raises `UnsteadyError`.
    """
    total: Tensor | None = None
    for number in range(first, last):
        if (values := measure(number)) is None:
            continue
        if total is not None and (total.shape != values.shape or total.dtype != values.dtype):
            raise UnsteadyError
        total = values.clone() if total is None else total.add_(values)
    return total
