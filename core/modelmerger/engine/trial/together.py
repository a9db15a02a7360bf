"""What the workers of a merge hold together: not all of them are at their most at the same time."""

import heapq
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping

from attrs import field, frozen

from modelmerger.engine.output_blocks import OutputBlocks
from modelmerger.values.layout import BLOCK
from modelmerger.values.plan import MergePlan


@frozen
class Needs:
    """Bytes that a worker needs."""

    cut: int
    """For tensors that are merged in slices, the window of the output among them."""
    whole: Mapping[int, float]
    """Elements of a tensor that is merged whole → what it needs besides that, an element."""

    def of_whole(self, elements: int) -> int:
        """For a tensor of so many elements that is merged whole, as for the one that is most like it."""
        if not elements:
            return 0
        return int(elements * self.whole[min(self.whole, key=lambda known: abs(math.log(known / elements)))])


def together(plan: MergePlan, needs: Needs) -> int:
    """Bytes that all workers hold at most, as they take one unit of the plan after the other.

    A unit lasts as long as it is large. A worker keeps its window and slices until nothing is left for it, and what it
    needs of whole tensors for the unit that they are in: tensors that are merged whole and lie in one block, or in
    blocks that they connect, are made one after the other, by one worker.
    """
    shifts = [_Shift() for _ in range(plan.workers)]
    free = [(0, number) for number in range(plan.workers)]
    for size, elements in _units(OutputBlocks(plan), plan):
        now, number = free[0]
        shifts[number].take(now, now + size, needs.of_whole(elements))
        heapq.heapreplace(free, (now + size, number))
    starts = [start for shift in shifts for start in shift.starts]
    return max((sum(shift.held_at(start, needs.cut) for shift in shifts) for start in starts), default=0)


@frozen
class _Shift:
    """The units of one worker, in their order."""

    starts: list[int] = field(factory=list)
    ends: list[int] = field(factory=list)
    whole: list[int] = field(factory=list)

    def take(self, start: int, end: int, whole: int) -> None:
        self.starts.append(start)
        self.ends.append(end)
        self.whole.append(whole)

    def held_at(self, time: int, cut: int) -> int:
        """Bytes at a time or shortly before. cut: what the worker keeps until its last unit is done."""
        unit = bisect_right(self.starts, time) - 1
        return cut + self.whole[unit] if unit >= 0 and time <= self.ends[unit] else 0


def _units(blocks: OutputBlocks, plan: MergePlan) -> Iterator[tuple[int, int]]:
    """Bytes of each unit, and the elements of the largest tensor in it that is merged whole."""
    for number, file in enumerate(plan.layout.files):
        for first, last in blocks.runs(file):
            begin, end = first * BLOCK, min(file.size, last * BLOCK)
            tensors = (plan.tensors[blocks.index[p.tensor.name]] for p in blocks.placements(number, begin, end))
            yield end - begin, max((t.elements for t in tensors if t.granularity == "whole"), default=0)
