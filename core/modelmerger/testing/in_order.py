"""Work whose tasks are handed out in another order than its own."""

import threading
from collections.abc import Callable, Sequence

from attrs import field, frozen

from modelmerger.values.units import Done, SliceWork, Task, Unit, Worker, WorkOrder

Order = Callable[[Sequence[Unit]], Sequence[Unit]]
"""Puts units that can be done at the same time in another order."""


def in_order(work: SliceWork, order: Order) -> SliceWork:
    """The same work; of the tasks that can be done, `order` says which is taken first."""
    return _Reordered(work, order)


@frozen(eq=False)
class _Reordered:
    _work: SliceWork
    _order: Order
    _ready: list[Task] = field(factory=list)
    _lock: threading.Lock = field(factory=threading.Lock)

    @property
    def workers(self) -> int:
        return self._work.workers

    def take(self, wait: float | None = None) -> Task | None:
        with self._lock:
            if not self._ready:
                found: dict[Unit, Task] = {}
                while task := self._work.take(0):
                    found[task.unit] = task
                self._ready.extend(found[unit] for unit in self._order(list(found)))
            if self._ready:
                return self._ready.pop(0)
        return self._work.take(wait)

    def done(self, done: Done) -> None:
        self._work.done(done)

    def failed(self, error: BaseException) -> None:
        self._work.failed(error)

    def cancel(self) -> None:
        self._work.cancel()

    def local(self) -> Worker:
        return self._work.local()

    def order(self) -> WorkOrder:
        return self._work.order()
