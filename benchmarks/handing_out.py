"""How many tasks of sixteen blocks a second go through the driver of a merge, to workers that do nothing and back into
the journal: on Ray where it is installed, else in this process.

    python benchmarks/handing_out.py
"""

import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BLOCKS = 16
"""In a task, each of which is a unit of its own, as those of most merges are."""
TASKS = 2_000


def done(task: Any) -> Any:
    """What a worker says that does nothing."""
    from modelmerger import BlockRecord, Done
    from modelmerger.values.work.block_record import Piece

    pieces = [Piece(8 << 20, "0" * 64, "model.layers.0.mlp.up_proj.weight"), Piece(8 << 20, "1" * 64, "lm_head.weight")]
    return Done(task.unit, task.token, 1, {task.unit.first: BlockRecord(pieces)}, worker="one that does nothing")


@contextmanager
def schedule(tasks: int) -> Iterator[Any]:
    """So many tasks, and a journal for what comes of them."""
    import torch
    from modelmerger.engine.merge import Merge
    from modelmerger.engine.work.elsewhere import Elsewhere
    from modelmerger.engine.work.schedule import Schedule
    from modelmerger.engine.work.totals import Totals
    from modelmerger.output.staging import Staging
    from modelmerger.testing.merging import plan_in_memory
    from modelmerger.values.work.units import Unit

    planned = plan_in_memory("weighted", [{"w": torch.zeros(4)}, {"w": torch.ones(4)}])
    merge = Merge(planned.plan, planned.checkpoints, planned.hooks, planned.settings)
    units = [Unit("write", 0, block, block + 1) for block in range(BLOCKS * tasks)]
    order: Callable[[], Any] = lambda: SimpleNamespace(to_json=lambda: "{}")  # noqa: E731 (a field, which has a default)
    with tempfile.TemporaryDirectory() as place, Staging(Path(place) / "out", "plan", planned.plan.layout) as staging:
        work = Schedule(merge, staging, lambda _: None, Elsewhere(order, "token", lambda *_: True, place))
        work._waiting, work._totals = OrderedDict.fromkeys(units), Totals(units)  # noqa: SLF001 (in place of its one)
        yield work
        if len(staging.records) != len(units):
            raise SystemExit("some tasks were lost")


def by_ray(work: Any) -> Callable[[], object]:
    """What has the tasks done on a cluster of this machine that is up."""
    import ray
    from modelmerger_plugins import ray as executor

    class Idle(executor.Node):
        def open(self, _order: str, _threads: int, _name: str) -> Sequence[Exception]:
            return []

        def do(self, tasks: Sequence[Any]) -> Sequence[Any]:
            return [done(task) for task in tasks]

    executor.Node, executor.BUNDLE = Idle, BLOCKS  # type: ignore[misc]  # a worker that does nothing takes its place
    ray.init("local", num_cpus=BLOCKS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    return lambda: executor.run_slices(work)


def here(work: Any) -> None:
    while task := work.take(0):
        work.done(done(task))


def rate(tasks: int = TASKS) -> tuple[float, float]:
    """Tasks a second from the first that is handed out to the last that came back, and CPU milliseconds of the driver
    a task.
    """
    with schedule(tasks) as work:
        run = by_ray(work) if find_spec("ray") else lambda: here(work)
        take, began = work.take, list[tuple[float, float]]()

        def first(*given: Any, **told: Any) -> Any:
            if not began:
                began.append((time.perf_counter(), time.process_time()))
            return take(*given, **told)

        work.take = first
        run()
        (wall, cpu) = began[0]
        return tasks / (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu) / tasks


if __name__ == "__main__":
    how = "on Ray" if find_spec("ray") else "in one process, as Ray is not installed"
    found, milliseconds = rate()
    print(f"{how}: {found:,.0f} tasks of {BLOCKS} blocks a second, {milliseconds:.2f} ms of the driver's CPU time each")
