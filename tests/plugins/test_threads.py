"""The built-in way to run the units of a merge: in order, in threads, ended by the first error."""

import signal
import threading
import time
from collections.abc import Callable

import pytest
from attrs import field, mutable
from inputs.watching import at_once
from modelmerger import Done, Task, Unit
from modelmerger_plugins.threads import run_slices


@mutable
class Work:
    """Twenty tasks, which a worker does by `act`."""

    act: Callable[[Unit], None]
    workers: int = 2
    units: list[Unit] = field(factory=lambda: [Unit("write", 0, number, number + 1) for number in range(20)])
    started: list[int] = field(factory=list)
    finished: list[int] = field(factory=list)
    told: list[tuple[int, int | None]] = field(factory=list)
    error: BaseException | None = None
    cancelled: threading.Event = field(factory=threading.Event)
    lock: threading.Lock = field(factory=threading.Lock)

    def take(self, wait: float | None = None, expected: Task | None = None) -> Task | None:
        with self.lock:
            if not self.units or self.cancelled.is_set():
                return None
            place = self.units.index(expected.unit) if expected and expected.unit in self.units else 0
            return Task(self.units.pop(place), {}, "")

    def expect(self) -> Task | None:
        with self.lock:
            return Task(self.units[-1], {}, "") if self.units else None

    def local(self) -> "Work":
        return self

    def do(self, task: Task, then: Task | None = None) -> Done:
        self.started.append(task.unit.first)
        self.told.append((task.unit.first, then and then.unit.first))
        self.act(task.unit)
        return Done(task.unit, task.token, 0)

    def done(self, done: Done) -> None:
        self.finished.append(done.unit.first)

    def failed(self, error: BaseException) -> None:
        self.error = error
        self.cancel()

    def cancel(self) -> None:
        self.cancelled.set()


def merging() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("merge-")]


@pytest.mark.parametrize("workers", [1, 2, 5, 40])
def test_every_unit_is_run_once_in_the_order_of_its_start(workers: int) -> None:
    work = Work(lambda _: time.sleep(0.001), workers)

    assert run_slices(work) is True

    assert sorted(work.started) == sorted(work.finished) == list(range(20))
    assert not work.cancelled.is_set()
    assert merging() == []


def test_a_worker_hears_what_it_will_do_next_and_does_that() -> None:
    work = Work(lambda _: None, 1)

    run_slices(work)

    expected = [0, *range(19, 0, -1)]
    assert work.told == list(zip(expected, [*expected[1:], None], strict=True))


def test_units_run_side_by_side() -> None:
    meeting = threading.Barrier(2, timeout=5)

    work = Work(lambda _: meeting.wait(), 2, Work(print).units[:2])
    run_slices(work)

    assert sorted(work.finished) == [0, 1]


def test_no_unit_is_no_work() -> None:
    assert run_slices(Work(print, 2, [])) is True


def test_the_first_error_ends_the_run_and_is_handed_on() -> None:
    """D3."""

    def act(unit: Unit) -> None:
        if unit.first == 3:
            raise ValueError("the third")
        time.sleep(0.005)

    work = Work(act)
    with at_once():
        run_slices(work)

    assert str(work.error) == "the third"
    assert work.cancelled.is_set()
    assert len(work.started) < 8
    assert merging() == []


def test_a_worker_that_dies_of_anything_ends_the_run() -> None:
    """D3."""

    def act(_: Unit) -> None:
        raise SystemExit(3)

    work = Work(act)
    with at_once():
        run_slices(work)

    assert isinstance(work.error, SystemExit)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_for_the_workers_and_is_raised() -> None:
    """A6: nothing writes any more once the caller hears of it."""
    written: list[Unit] = []

    def act(unit: Unit) -> None:
        work.cancelled.wait(5)
        time.sleep(0.3 if threading.current_thread().name == "merge-0" else 0)  # for which it waits first
        written.append(unit)

    work = Work(act, 2)
    main = threading.main_thread().ident
    threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()  # while it waits for a thread

    with at_once(), pytest.raises(KeyboardInterrupt):
        run_slices(work)

    assert work.cancelled.is_set()
    assert len(work.started) == len(written) == 2
    assert merging() == []


def test_where_no_thread_can_be_started_those_that_run_are_ended_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """D3."""
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if thread.name == "merge-1":
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    work = Work(lambda _: work.cancelled.wait(5), 3)

    with at_once(), pytest.raises(RuntimeError, match="can't start new thread"):
        run_slices(work)

    assert len(started) == 1
    assert len(work.started) <= 1
    assert merging() == []
