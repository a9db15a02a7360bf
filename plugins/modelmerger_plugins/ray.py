"""Does the work of a merge on the nodes of a Ray cluster: that of `RAY_ADDRESS`, or one of its own on this machine."""

import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

from attrs import define, field
from modelmerger import Done, PluginError, SliceWork, Task, Worker, WorkOrder, hookimpl, open_workers

BUNDLE, AHEAD, STARTS = 64, 2, 3
"""Tasks of 16 MiB of output that are sent at once, at most; such bundles that a node has; starts of a process."""


class Node:
    """The process of a node, with a worker for each of its threads. Errors are returned: Ray would print them."""

    def open(self, order: str, threads: int, name: str) -> list[Exception]:
        """Opens the models there. Returns why it cannot, or nothing."""
        self._free: SimpleQueue[Worker] = SimpleQueue()
        try:
            for worker in open_workers(WorkOrder.from_json(order), threads, name):
                self._free.put(worker)
        except Exception as error:
            return [error]
        self._pool = ThreadPoolExecutor(threads)
        return []

    def do(self, tasks: list[Task]) -> list[Done | Exception]:
        """What came of each task."""
        return list(self._pool.map(self._do, tasks))

    def _do(self, task: Task) -> Done | Exception:
        try:
            return (worker := self._free.get()).do(task)
        except Exception as error:
            return error
        finally:
            self._free.put(worker)


@define(eq=False)
class _Place:
    """A node that takes part, its process, and what that is doing: the tasks of each call; None where it opens."""

    node: dict[str, Any]
    process: Any = None
    starts: int = 0
    running: dict[Any, list[Task] | None] = field(factory=dict)

    def start(self, ray: Any, order: str) -> None:
        threads, by_node = int(self.node["Resources"]["CPU"]), ray.util.scheduling_strategies
        here = by_node.NodeAffinitySchedulingStrategy(self.node["NodeID"], soft=False)
        self.starts += 1
        self.process = ray.remote(num_cpus=threads, max_concurrency=AHEAD, scheduling_strategy=here)(Node).remote()
        self.running = {self.process.open.remote(order, threads, self.node["NodeName"]): None}

    def fill(self, work: SliceWork, again: list[Task]) -> None:
        may = len(self.running) < AHEAD and None not in self.running.values()
        size = min(BUNDLE, int(self.node["Resources"]["CPU"])) * may
        tasks = [again.pop() for _ in range(min(size, len(again)))]
        while len(tasks) < size and (task := work.take(0)):
            tasks.append(task)
        if tasks:
            self.running[self.process.do.remote(tasks)] = tasks


@contextmanager
def _connected() -> Iterator[Any]:
    """Ray: as this process has it already, else the cluster of RAY_ADDRESS, else a new one on this machine."""
    try:
        import ray.util.scheduling_strategies
    except ImportError:
        raise PluginError("executor 'ray' needs Ray. Run: pip install 'modelmerger[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(os.environ.get("RAY_ADDRESS") or "local", log_to_driver=False, logging_level=logging.ERROR)
        with suppress(ValueError, TypeError):  # in the main thread, if it is Python's: Ray's own would print a trace
            signal.signal(signal.SIGTERM, handler)
        yield ray
    finally:
        ray.shutdown()


@hookimpl
def run_slices(work: SliceWork) -> bool:
    """Has all nodes answer before any task is sent. What a process had to do that is gone, another one does."""
    order, again = work.order().to_json(), list[Task]()
    with _connected() as ray:
        places = [_Place(node) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        try:
            for place in places:
                place.start(ray, order)
            while refs := [ref for place in places for ref in place.running]:
                ready = set(ray.wait(refs, timeout=1)[0])
                for place in [place for place in places if not ready.isdisjoint(place.running)]:
                    try:
                        for ref in ready.intersection(place.running):
                            for found in ray.get(ref):
                                work.failed(found) if isinstance(found, Exception) else work.done(found)
                            del place.running[ref]
                    except ray.exceptions.RayError:
                        again += [task for tasks in place.running.values() for task in tasks or ()]
                        place.start(ray, order) if place.starts < STARTS else places.remove(place)
                answered = all(place.starts > 1 or None not in place.running.values() for place in places)
                for place in places * AHEAD if answered else ():  # each gets one before any gets two
                    place.fill(work, again)
        finally:
            for place in places:
                ray.kill(place.process)
    if not places:
        raise OSError("no node of the cluster is left that has a processor")
    return True
