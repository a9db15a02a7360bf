"""The statistics of the tensors of a merge: summed as they come, and kept for as long as a unit needs them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from modelmerger.engine.statistics import Join, OrderedSum, as_statistic, as_tensor
from modelmerger.values.work.units import Statistic, Unit

if TYPE_CHECKING:
    from torch import Tensor

Joining = Callable[[int, "Sequence[Tensor]"], Join | None]
"""What makes one statistic of several in the next round of a tensor, given the totals of those before it."""


def _never(_: int, __: "Sequence[Tensor]") -> None:
    """Statistics are added up."""


class _Measurement:
    """Of one tensor, round by round."""

    def __init__(self, rounds: int, parts: int, joining: Callable[[Sequence["Tensor"]], Join | None]) -> None:
        self.rounds = rounds
        self.parts = parts
        self.totals: list[Statistic] = []
        self._joining = joining
        self._sum: OrderedSum | None = None

    @property
    def over(self) -> bool:
        return len(self.totals) == self.rounds

    def add(self, part: int, statistic: Statistic | None) -> None:
        """Adds a part of the round that is on."""
        if self._sum is None:
            self._sum = OrderedSum(self.parts, self._joining(list(map(as_tensor, self.totals))))
        self._sum.add(part, None if statistic is None else as_tensor(statistic))
        if not self._sum.complete:
            return
        if (total := self._sum.total) is None:
            self.rounds = len(self.totals)
        else:
            self.totals.append(as_statistic(total))
        self._sum = None


class Totals:
    """What is measured of each tensor, by its index in the plan.

    units: all those of the merge. joining: what makes one statistic of several, given a tensor and its totals.
    """

    def __init__(self, units: Iterable[Unit], joining: Joining = _never) -> None:
        units = list(units)
        begun: Counter[tuple[int, int]] = Counter()
        self._part: dict[Unit, int] = {}
        for unit in units:
            if unit.kind == "measure":
                self._part[unit] = begun[unit.of, unit.round]
                begun[unit.of, unit.round] += 1
        rounds = Counter(tensor for tensor, _ in begun)
        self._of = {
            tensor: _Measurement(count, begun[tensor, 0], partial(joining, tensor)) for tensor, count in rounds.items()
        }
        self._left = Counter(tensor for unit in units if unit.kind == "write" for tensor in unit.needs)

    def add(self, unit: Unit, statistic: Statistic | None) -> None:
        """Adds what came of a measuring unit; None where there was nothing to measure. Raises `UnsteadyError`."""
        self._of[unit.of].add(self._part[unit], statistic)

    def ready(self, unit: Unit) -> bool:
        """Whether what a unit needs is there."""
        if unit.kind == "measure":
            return len(self._of[unit.of].totals) >= unit.round
        return all(self._of[tensor].over for tensor in unit.needs)

    def needed(self, unit: Unit) -> dict[int, Sequence[Statistic]]:
        """The totals that a unit needs, which is ready."""
        return {tensor: tuple(self._of[tensor].totals) for tensor in unit.needs}

    def over(self, tensor: int) -> bool:
        """Whether the measurement of a tensor is over."""
        return self._of[tensor].over

    def forget(self, unit: Unit) -> list[int]:
        """A unit that is done needs nothing any more: drops the totals that no other needs, and returns whose."""
        over = []
        if unit.kind == "write":
            for tensor in unit.needs:
                self._left[tensor] -= 1
                if not self._left[tensor]:
                    self._of[tensor].totals = []
                    over.append(tensor)
        return over
