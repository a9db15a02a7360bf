"""What a worker says will be read: of its task, and behind it of the one that it does next. And in how many threads it computes."""

import ctypes
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from blocks import contents, set_block
from modelmerger import MemorySink, Task, Traits, Unit, hookimpl
from modelmerger.engine.blocks import BlockWriter
from modelmerger.engine.measuring import Measurer
from modelmerger.engine.merge import Merge
from modelmerger.engine.work.schedule import Schedule
from modelmerger.testing import plan_in_memory

TENSORS = {"a": torch.arange(2_000.0), "b": torch.ones(50)}


class Run:
    """A merge in blocks of 1 KiB, and what was said of it. broken: the number of a block of which nothing can be said."""

    def __init__(self, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
        set_block(monkeypatch, 1 << 10)
        merge = plan_in_memory(strategy, [TENSORS, {name: tensor.flip(0) for name, tensor in TENSORS.items()}])
        self.sink = MemorySink(merge.plan.layout)
        self.work = Schedule(
            Merge(merge.plan, merge.checkpoints, merge.hooks, merge.settings), self.sink, lambda _: None
        )
        self.worker = self.work.local()
        self.said: list[Unit] = []
        self.broken: int | None = None
        for owner in (BlockWriter, Measurer):
            monkeypatch.setattr(owner, "read_ahead", self._hears(owner.read_ahead))

    def _hears(self, say):  # type: ignore[no-untyped-def]  # of either class
        def hears(self_, unit: Unit, *more: object) -> None:  # type: ignore[no-untyped-def]
            if unit.first == self.broken:
                raise ValueError("the disk is gone")
            self.said.append(unit)
            say(self_, unit, *more)

        return hears

    def do(self, task: Task, then: Task | None) -> None:
        self.work.done(self.worker.do(task, then))


@pytest.mark.parametrize("strategy", ["weighted", "slerp"])
def test_each_task_is_said_once_and_before_the_one_before_it_is_done(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain = Run(strategy, monkeypatch), Run(strategy, monkeypatch)
    done: list[Unit] = []
    then = None
    while task := run.work.take(0, then):
        then = run.work.expect()
        run.do(task, then)
        done.append(task.unit)
        assert run.said[: len(done)] == done
        assert run.said[len(done) :] == ([then.unit] if then else [])
    while task := plain.work.take(0):
        plain.do(task, None)

    assert len(done) > 8
    assert contents(run.sink) == contents(plain.sink)


def test_an_error_of_the_next_task_is_no_error_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("weighted", monkeypatch)
    run.broken = 1
    first, second = run.work.take(), run.work.take()
    assert first is not None
    assert second is not None

    run.do(first, second)

    assert list(run.sink.records) == [(0, 0)]
    with pytest.raises(Exception, match="the disk is gone"):
        run.worker.do(second)


def test_a_task_that_comes_instead_of_the_next_one_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker has taken the one that was expected."""
    run = Run("weighted", monkeypatch)
    first, second, third = run.work.take(), run.work.take(), run.work.take()
    assert first is not None
    assert third is not None
    run.do(first, second)
    run.do(third, None)
    assert second is not None
    assert run.said == [first.unit, second.unit, third.unit]


def threads_of_decompositions() -> int:
    """As many as OpenMP has in the thread that asks; a thread begins with as many as the machine has cores."""
    maps = Path("/proc/self/maps").read_text()
    places = set(re.findall(r"/\S*/torch/lib/lib[gi]?omp\S*", maps))
    return max(ctypes.CDLL(place).omp_get_max_threads() for place in places)


class Counting:
    traits = Traits(models=(1, None), granularity="whole")

    def __init__(self) -> None:
        self.found: list[int] = []

    @hookimpl
    def merge_tensor(self, tensors: Any) -> torch.Tensor:
        self.found.append(threads_of_decompositions())
        return torch.zeros_like(tensors[0])


def test_it_computes_in_its_own_thread_alone() -> None:
    counting = Counting()
    merge = plan_in_memory(counting, [TENSORS])
    work = Schedule(
        Merge(merge.plan, merge.checkpoints, merge.hooks, merge.settings), MemorySink(merge.plan.layout), lambda _: None
    )

    def run() -> None:
        worker = work.local()
        while task := work.take(0):
            work.done(worker.do(task))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert counting.found == [1, 1]
