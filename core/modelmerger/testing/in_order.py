"""Work whose tasks are handed out in another order than its own."""

import threading
import time
from collections.abc import Callable, Sequence

from attrs import field, frozen

from modelmerger.values.work.units import Done, SliceWork, Task, Unit, Worker, WorkOrder

Order = Callable[[Sequence[Unit]], Sequence[Unit]]
"""Puts units that can be done at the same time in another order, and may leave some out."""
PATIENCE = 0.05
"""Seconds between two looks for more that can be done."""


def in_order(work: SliceWork, order: Order) -> SliceWork:
    """The same work; of the tasks that can be done, `order` says which is taken first.

    What it leaves out is not done, and neither is what would have waited for that.
    """
    return _Reordered(work, order)


@frozen(eq=False)
class _Reordered:
    _work: SliceWork
    _order: Order
    _ready: list[Task] = field(factory=list)
    _running: set[Unit] = field(factory=set)
    _changed: threading.Condition = field(factory=threading.Condition)

    @property
    def workers(self) -> int:
        return self._work.workers

    def take(self, wait: float | None = None, expected: Task | None = None) -> Task | None:  # noqa: ARG002 (order decides)
        until = None if wait is None else time.monotonic() + wait
        with self._changed:
            while True:
                if not self._ready:
                    found: dict[Unit, Task] = {}
                    while task := self._work.take(0):
                        found[task.unit] = task
                    self._ready.extend(found[unit] for unit in self._order(list(found)))
                if self._ready:
                    self._running.add(self._ready[0].unit)
                    return self._ready.pop(0)
                left = PATIENCE if until is None else until - time.monotonic()
                if not self._running or left <= 0:
                    return None
                self._changed.wait(min(left, PATIENCE))

    def expect(self) -> Task | None:
        return None

    def done(self, done: Done) -> None:
        self._work.done(done)
        with self._changed:
            self._running.discard(done.unit)
            self._changed.notify_all()

    def failed(self, error: BaseException) -> None:
        self._work.failed(error)
        self._running.clear()

    def cancel(self) -> None:
        self._work.cancel()
        self._running.clear()

    def local(self) -> Worker:
        return self._work.local()

    def order(self) -> WorkOrder:
        return self._work.order()
