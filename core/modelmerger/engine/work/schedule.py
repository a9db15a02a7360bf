"""What is to be done next: the units of a merge in an order, what each waits for, and what has come of them."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from modelmerger.engine.blocks import BlockWriter
from modelmerger.engine.cancelling import CancelledError
from modelmerger.engine.measuring import Measurer, measuring_units
from modelmerger.engine.merge import Merge
from modelmerger.engine.output_blocks import OutputBlocks
from modelmerger.engine.statistics import UnsteadyError
from modelmerger.engine.tensors import SliceMerger
from modelmerger.engine.work.elsewhere import Elsewhere
from modelmerger.engine.work.totals import Totals
from modelmerger.engine.work.worker import DeviceInUse, MergeWorker
from modelmerger.output.sink import Sink
from modelmerger.planning.cost import bytes_measured, from_device, most_kept
from modelmerger.values.errors import ConfigError, MergeError, Problem
from modelmerger.values.layout import BLOCK
from modelmerger.values.plan import MergePlan
from modelmerger.values.work.units import Done, Statistic, Task, Unit, WorkOrder

if TYPE_CHECKING:
    from modelmerger.engine.reading.kept import KeptInputs

PATIENCE = 0.1
"""Seconds between two looks at whether the run was cancelled, for who waits."""


class Schedule:
    """The work of one merge, as `SliceWork` describes it. Blocks that the sink has already need no unit.

    advance: called with the bytes that were read and written since the last call, from any thread. elsewhere: what
    workers of other processes need; None where there are none. others: blocks, by file and block, that others make.
    """

    def __init__(
        self,
        merge: Merge,
        sink: Sink,
        advance: Callable[[int], None],
        elsewhere: Elsewhere | None = None,
        others: AbstractSet[tuple[int, int]] = frozenset(),
    ) -> None:
        self.error: BaseException | None = None
        """The first error of any worker."""
        self._merge = merge
        self._sink = sink
        self._advance = advance
        self._elsewhere = elsewhere
        self._token = elsewhere.token if elsewhere is not None else os.urandom(16).hex()
        self._believed = {""}
        self._cancelled = threading.Event()
        self._changed = threading.Condition()
        self._kept = _kept(merge)
        self._measurer = Measurer(merge, self._kept)
        self._blocks = OutputBlocks(merge.plan)
        self._slices = SliceMerger(merge, self._measurer)
        self._device = DeviceInUse(merge.device)
        units = list(units_in_order(merge.plan, self._blocks, self._measurer, sink.records.keys() | others))
        self._waiting = OrderedDict.fromkeys(units)  # a dict passes over all that was taken whenever it is asked
        self._expected: set[Unit] = set()
        self._taken: set[Unit] = set()
        self._totals = Totals(units, self._measurer.joining)
        self._left: dict[int, int] = {}

    @property
    def workers(self) -> int:
        """How many tasks to do at a time."""
        return self._merge.plan.workers

    def take(self, wait: float | None = None, expected: Task | None = None) -> Task | None:
        """The next task that can be done, the expected one if nobody has it."""
        until = None if wait is None else time.monotonic() + wait
        with self._changed:
            while self._waiting and not self._cancelled.is_set():
                if (unit := self._next(expected)) is not None:
                    del self._waiting[unit]
                    self._expected.discard(unit)
                    self._taken.add(unit)
                    return self._task(unit)
                left = PATIENCE if until is None else until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(PATIENCE, left))
        return None

    def expect(self) -> Task | None:
        """The next task that can be done and that nobody expects. It may be taken all the same."""
        with self._changed:
            if self._cancelled.is_set() or (unit := self._unexpected()) is None:
                return None
            self._expected.add(unit)
            return self._task(unit)

    def done(self, done: Done) -> None:
        """Notes finished blocks, or adds to a statistic. What is not of this run, or known already, changes nothing."""
        with self._changed:
            if done.token != self._token or done.unit not in self._taken:
                return
            if not self._believes(done):
                return
            self._taken.remove(done.unit)
            moved = done.moved
            if done.unit.kind == "measure":
                moved = self._measured(done.unit, done.statistic, done.moved)
            for block, record in done.records.items():
                self._sink.record(done.unit.of, block, record)
            for tensor in self._totals.forget(done.unit):
                if self._kept is not None:
                    self._kept.forget(tensor)
            self._changed.notify_all()
        self._advance(moved)

    def failed(self, error: BaseException) -> None:
        """Keeps the first error that is not the consequence of another, and cancels."""
        with self._changed:
            if self.error is None and not isinstance(error, CancelledError):
                self.error = error
        self.cancel()

    def cancel(self) -> None:
        """Ends the run."""
        self._cancelled.set()

    def end(self) -> None:
        """Nothing is taken any more from whoever still works."""
        self.cancel()
        with self._changed:
            self._taken.clear()

    def local(self) -> MergeWorker:
        """A new worker in this process."""
        blocks = BlockWriter(self._slices, self._blocks, self._sink, self._cancelled.is_set)
        return MergeWorker(blocks, self._device)

    def order(self) -> WorkOrder:
        """For workers elsewhere."""
        if self._elsewhere is None:
            message = "models in memory are merged, which no worker elsewhere can open. Give paths, or leave it out."
            raise ConfigError(Problem(message, "options.executor"))
        return self._elsewhere.order()

    def _believes(self, done: Done) -> bool:
        """Whether what a worker writes comes to where this process reads: one block is read back of each process."""
        if done.worker in self._believed or self._elsewhere is None or not done.records:
            return True
        block, record = next(iter(done.records.items()))
        try:
            if not self._elsewhere.holds(done.unit.of, block, record):
                raise self._elsewhere.unwritten_error(done.worker)
        except MergeError as error:
            self.error = self.error or error
            self.cancel()
            return False
        self._believed.add(done.worker)
        return True

    def _next(self, expected: Task | None) -> Unit | None:
        """The unit that is taken now: the expected one, one that nobody expects, or what somebody else does."""
        if expected is not None and expected.unit in self._waiting:
            return expected.unit
        return self._unexpected() or next(filter(self._totals.ready, self._waiting), None)

    def _unexpected(self) -> Unit | None:
        return next((u for u in self._waiting if u not in self._expected and self._totals.ready(u)), None)

    def _task(self, unit: Unit) -> Task:
        return Task(unit, self._totals.needed(unit), self._token)

    def _measured(self, unit: Unit, statistic: Statistic | None, moved: int) -> int:
        """Returns how many of the bytes that the plan counts for the tensor's measurement are done with this unit.

        Those are no more than it read, unless the measurement ended with fewer than were planned.
        """
        tensor = self._merge.plan.tensors[unit.of]
        try:
            self._totals.add(unit, statistic)
        except UnsteadyError as error:
            raise self._merge.hooks.strategy.unsteady_measure_error(tensor.name, str(error)) from None
        left = self._left.get(unit.of, bytes_measured(self._merge.checkpoints, tensor))
        counted = left if self._totals.over(unit.of) else min(left, moved)
        self._left[unit.of] = left - counted
        if self._totals.over(unit.of):
            for later in [other for other in self._waiting if other.kind == "measure" and other.of == unit.of]:
                del self._waiting[later]
        return counted


def _kept(merge: Merge) -> "KeptInputs | None":
    """What holds the inputs of tensors between measuring and merging; None where there are none to hold."""
    plan, most = merge.plan, most_kept(merge.settings.options, merge.plan.tensors)
    if not most or not any(from_device(plan.ways, merge.checkpoints, tensor) for tensor in plan.tensors):
        return None
    from modelmerger.engine.reading.kept import KeptInputs

    return KeptInputs(plan, merge.checkpoints, most)


def units_in_order(
    plan: MergePlan, blocks: OutputBlocks, measurer: Measurer, done: Container[tuple[int, int]]
) -> Iterator[Unit]:
    """Units in order. A measurement comes one writing unit before it is needed, so workers rarely wait for it.

    done: blocks that need not be made, by file and block.
    """
    measured: set[int] = set()
    waiting: list[Unit] = []
    for number, file in enumerate(plan.layout.files):
        for first, last in blocks.runs(file):
            if all((number, block) in done for block in range(first, last)):
                continue
            needs = []
            for placement in blocks.placements(number, first * BLOCK, last * BLOCK):
                index = blocks.index[placement.tensor.name]
                if rounds := measurer.rounds(index):
                    needs.append(index)
                    if index not in measured:
                        measured.add(index)
                        yield from measuring_units(index, plan.tensors[index], rounds)
            yield from waiting
            waiting = [Unit("write", number, first, last, tuple(needs))]
    yield from waiting
