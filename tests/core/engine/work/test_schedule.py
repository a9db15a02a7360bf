"""Which task comes next, what it waits for, and what is taken from whoever did it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from blocks import contents
from modelmerger import ConfigError, MemorySink, Task
from modelmerger.engine import measuring
from modelmerger.engine.merge import Merge
from modelmerger.engine.work.schedule import Schedule
from modelmerger.testing import Planned, plan_in_memory

TENSORS = {"a": torch.arange(600.0).view(20, 30), "b": torch.ones(50)}
OTHER = {**TENSORS, "a": TENSORS["a"].flip(0), "b": torch.arange(50.0)}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelmerger.planning.measured.MEASURED", 60)
    monkeypatch.setattr(measuring, "BLOCKS_A_UNIT", 2)


class Run:
    """A merge by slerp, and what was reported of it."""

    def __init__(self, merge: Planned | None = None) -> None:
        merge = merge or plan_in_memory("slerp", [TENSORS, OTHER])
        self.plan = merge.plan
        self.sink = MemorySink(merge.plan.layout)
        self.moved: list[int] = []
        self.work = Schedule(
            Merge(merge.plan, merge.checkpoints, merge.hooks, merge.settings), self.sink, self.moved.append
        )
        self.worker = self.work.local()

    def take_all(self) -> list[Task]:
        return list(iter(lambda: self.work.take(0), None))

    def finish(self) -> bytes:
        while tasks := self.take_all():
            for task in tasks:
                self.work.done(self.worker.do(task))
        return b"".join(contents(self.sink).values())


def test_only_what_can_be_done_is_handed_out_and_each_task_once() -> None:
    run = Run()

    first = run.take_all()

    assert {task.unit.kind for task in first} == {"measure"}
    assert len({task.unit for task in first}) == len(first) == 6
    assert run.work.take(0) is None
    for task in first:
        run.work.done(run.worker.do(task))
    (write,) = run.take_all()
    assert (write.unit.kind, write.unit.needs) == ("write", (0, 1))
    assert {tensor: len(found) for tensor, found in write.totals.items()} == {0: 1, 1: 1}


def test_who_waits_gets_the_task_that_becomes_ready() -> None:
    run = Run()
    tasks = run.take_all()
    got: list[Task | None] = []
    waiter = threading.Thread(target=lambda: got.append(run.work.take()))
    waiter.start()
    waiter.join(0.05)
    assert got == []

    for task in tasks:
        run.work.done(run.worker.do(task))
    waiter.join(10)

    assert [task.unit.kind for task in got if task] == ["write"]


@pytest.mark.parametrize("how", ["cancel", "failed"])
def test_who_waits_is_let_go_when_the_run_ends(how: str) -> None:
    run = Run()
    run.take_all()
    got: list[Task | None] = []
    waiter = threading.Thread(target=lambda: got.append(run.work.take()))
    waiter.start()

    run.work.cancel() if how == "cancel" else run.work.failed(ValueError("broken"))
    waiter.join(10)

    assert got == [None]
    assert (run.work.error is not None) == (how == "failed")


def test_what_somebody_expects_is_taken_by_others_last() -> None:
    run, ours = Run(), Run()
    order = [task.unit for task in ours.take_all()]

    first, second = run.work.expect(), run.work.expect()
    assert first is not None
    assert second is not None
    assert [first.unit, second.unit] == order[:2]
    assert [task.unit for task in (run.work.take(), run.work.take(0, second)) if task] == [order[2], order[1]]
    rest = run.take_all()
    assert [task.unit for task in rest] == [*order[3:], order[0]]
    assert run.work.take(0, first) is None
    assert run.work.expect() is None


def test_nothing_is_expected_that_waits_for_something_or_of_a_run_that_is_over() -> None:
    run = Run()
    tasks = run.take_all()
    assert run.work.expect() is None
    for task in tasks:
        run.work.done(run.worker.do(task))
    write = run.work.expect()
    assert write is not None
    assert (write.unit.kind, len(write.totals)) == ("write", 2)
    over = Run()
    over.work.cancel()
    assert over.work.expect() is None


def test_what_is_done_again_changes_nothing() -> None:
    expected, run = Run().finish(), Run()
    for task in run.take_all():
        for _ in range(3):
            run.work.done(run.worker.do(task))

    assert run.finish() == expected
    assert sum(run.moved) == run.plan.bytes_read + run.plan.bytes_written


def test_nothing_is_taken_of_another_run_or_of_one_that_is_over() -> None:
    """A worker that outlives its run holds tasks of units that the next run has too."""
    old, run = Run(), Run()
    stale = [old.worker.do(task) for task in old.take_all()]
    tasks = run.take_all()

    for done in stale:
        run.work.done(done)
    assert run.take_all() == []
    assert run.moved == []
    run.work.done(evolve(run.worker.do(tasks[0]), token=""))
    assert run.moved == []

    late = [run.worker.do(task) for task in tasks]
    run.work.end()
    for done in late:
        run.work.done(done)
    assert run.moved == []
    assert not run.sink.records


def test_the_first_error_is_kept_and_the_consequences_of_cancelling_are_none() -> None:
    run = Run()
    task = run.take_all()[0]
    run.work.failed(ValueError("first"))
    with pytest.raises(BaseException) as consequence:
        run.worker.do(task)
    run.work.failed(consequence.value)
    run.work.failed(ValueError("second"))

    assert str(run.work.error) == "first"
    cancelled = Run()
    cancelled.work.failed(consequence.value)
    assert cancelled.work.error is None


def test_blocks_that_are_there_need_no_unit_and_no_measurement() -> None:
    run = Run()
    run.finish()
    again = Schedule(run.work._merge, run.sink, run.moved.append)
    assert again.take(0) is None


def test_models_in_memory_have_no_work_order() -> None:
    with pytest.raises(ConfigError, match="models in memory"):
        Run().work.order()


ENDS = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(rounds=3)

@hookimpl
def measure_tensor(tensors, round, tensor_name):
    return None if round == {rounds}[tensor_name] else torch.ones(65536, dtype=torch.int64)

@hookimpl
def merge_tensor(tensors, measurements, tensor_name):
    assert len(measurements) == {rounds}[tensor_name]
    return tensors[0] * 2
"""


def test_rounds_that_are_not_needed_are_neither_read_nor_waited_for(distribution: Callable[..., Path]) -> None:
    source = ENDS.format(rounds={"a": 2, "b": 0})
    distribution("acme", "1.0", "[modelmerger.strategies]\nends = acme_ends\n", acme_ends=source)
    run = Run(plan_in_memory("ends", [TENSORS]))

    run.finish()

    assert run.plan.bytes_read == 4 * (600 + 50) * 4
    assert sum(run.moved) == run.plan.bytes_read + run.plan.bytes_written
    assert len(run.sink.records) == 1


def test_totals_are_dropped_once_nobody_needs_them(distribution: Callable[..., Path]) -> None:
    source = ENDS.format(rounds={"a": 3, "b": 3})
    distribution("acme", "1.0", "[modelmerger.strategies]\nends = acme_ends\n", acme_ends=source)
    run = Run(plan_in_memory("ends", [TENSORS]))
    run.finish()

    kept: Any = run.work._totals._of
    assert [measurement.totals for measurement in kept.values()] == [[], []]
