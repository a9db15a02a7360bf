"""Does the work of a merge on the nodes of a Ray cluster: that of `RAY_ADDRESS`, or one of its own on this machine."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, islice, zip_longest
from typing import Any

from attrs import define, field
from modelmerger import Done, PluginError, SliceWork, Task, WorkOrder, hookimpl, open_workers, shown

BUNDLE, AHEAD, STARTS = 64, 2, 3
"""Tasks of 16 MiB of output that come to be sent at once; such bundles that a node has; starts of a process."""
RECORDS = "RAY_task_events_report_interval_ms"
"""With 0, Ray keeps no records of tasks, which would wait 5 s for a cluster that SIGTERM has ended too."""


class Node:
    """The process of a node, with a worker for each of its threads. Errors are returned: Ray would print them."""

    def open(self, order: str, threads: int, name: str) -> Sequence[Exception]:
        """Opens the models there. Returns why it cannot, or nothing."""
        self._threads, self._pool = threads, ThreadPoolExecutor(threads)
        try:
            self._free = open_workers(WorkOrder.from_json(order), threads, name)
        except Exception as error:
            return [error]
        return []

    def do(self, tasks: Sequence[Task]) -> Sequence[Done | Exception]:
        """What came of each task. A thread knows what it will do next, whose inputs are read meanwhile."""
        shares = [tasks[first :: self._threads] for first in range(self._threads)]
        return list(chain.from_iterable(self._pool.map(self._do, shares)))

    def _do(self, tasks: Sequence[Task]) -> Sequence[Done | Exception]:
        worker = self._free.pop()
        try:
            return [worker.do(task, then) for task, then in zip_longest(tasks, tasks[1:])]
        except Exception as error:
            return [error]
        finally:
            self._free.append(worker)


@define(eq=False)
class _Place:
    """A node that takes part, its process, and what that is doing: the tasks of each call; None where it opens."""

    node: dict[str, Any]
    process: Any = None
    starts: int = 0
    sent: int = 0
    running: dict[Any, Sequence[Task] | None] = field(factory=dict)

    def start(self, ray: Any, order: str) -> None:
        threads, by_node = int(self.node["Resources"]["CPU"]), ray.util.scheduling_strategies
        here = by_node.NodeAffinitySchedulingStrategy(self.node["NodeID"], soft=False)
        self.starts += 1
        self.process = ray.remote(num_cpus=threads, max_concurrency=AHEAD, scheduling_strategy=here)(Node).remote()
        self.running = {self.process.open.remote(order, threads, self.node["NodeName"]): None}

    def fill(self, work: SliceWork, again: list[Task]) -> None:
        may = len(self.running) < AHEAD and None not in self.running.values()
        size = min(BUNDLE, int(self.node["Resources"]["CPU"]) * (self.sent + 1)) * may
        if tasks := list(islice(iter(lambda: again.pop() if again else work.take(0), None), size)):
            self.sent += 1
            self.running[self.process.do.remote(tasks)] = tasks


@contextmanager
def _connected() -> Iterator[Any]:
    """Ray: as this process has it already, else the cluster of RAY_ADDRESS, else a new one on this machine."""
    try:
        import ray.util.scheduling_strategies
    except ImportError:
        raise PluginError("executor 'ray' needs Ray. Run: pip install 'modelmerger[ray]'") from None
    ours, told = not ray.is_initialized(), {"include_dashboard": False, "log_to_driver": False}
    with ThreadPoolExecutor(1) as other, ExitStack() as last:  # what a thread starts ends with it
        if ours:
            last.callback(lambda: other.submit(ray.shutdown).result())
            os.environ.setdefault(RECORDS, "0")
            other.submit(ray.init, os.environ.get("RAY_ADDRESS") or "local", logging_level="ERROR", **told).result()
            with suppress(ValueError, TypeError):  # in the main thread, if it is Python's: Ray's C++ has taken it
                signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        yield ray


@hookimpl
def run_slices(work: SliceWork) -> bool:
    """Has all nodes answer before any task is sent. What a process had to do that is gone, another one does."""
    order, again, why = work.order().to_json(), list[Task](), "none has a processor"
    with _connected() as ray:
        places = [_Place(node) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        try:
            for place in places:
                place.start(ray, order)
            while refs := {ref: place for place in places for ref in place.running}:
                for ref, place in [(ref, refs[ref]) for ref in ray.wait(list(refs), timeout=1)[0]]:
                    try:
                        for found in ray.get(ref):
                            if isinstance(found, Exception):
                                work.failed(found)
                                return True
                            work.done(found)
                        del place.running[ref]
                    except ray.exceptions.RayError as error:
                        why = shown(" ".join(str(error).split()), 200)
                        again += [task for tasks in place.running.values() for task in tasks or ()]
                        place.start(ray, order) if place.starts < STARTS else places.remove(place)
                answered = all(place.starts > 1 or None not in place.running.values() for place in places)
                for place in places * AHEAD if answered else ():  # each gets one before any gets two
                    place.fill(work, again)
        finally:
            for place in filter(lambda place: place.process, places):
                ray.kill(place.process)
    if not places:
        raise PluginError(f"executor 'ray': no node of the cluster is left. {why}")
    return True
