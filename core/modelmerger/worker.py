"""A worker of a merge that another process runs: rebuilt from its work order, with the same plan or not at all."""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from attrs import define, evolve

from modelmerger.config.resolve import resolve
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.hooks.registry import Registry
from modelmerger.planning.prepared import prepare
from modelmerger.values.errors import MergeError
from modelmerger.values.model_reference import Location, ModelReference
from modelmerger.values.work.units import Done, Task, Worker, WorkOrder


def open_worker(order: WorkOrder, node: str = "") -> Worker:
    """One of `open_workers`."""
    (worker,) = open_workers(order, 1, node)
    return worker


def open_workers(order: WorkOrder, count: int, node: str = "") -> list[Worker]:
    """Opens the models of a merge that runs elsewhere, and returns workers that do its tasks and share the models.

    Give each thread its own, and close all of them at the end. While they are open, torch computes in the calling
    threads alone.

    Nothing is looked for: models are where the order says. node: what this machine is called in messages; without it,
    by its host name. Raises `InputError` where an input is not seen here as it is by the run, `OutputError` where the
    staged files are not, and `MergeError` where the config, the plugins, torch or the machine's arithmetic come to
    other bytes than those of the run. Each names the node and the first thing that differs.
    """
    from modelmerger.engine.arithmetic import one_thread_each
    from modelmerger.engine.arithmetic_digest import with_digest
    from modelmerger.engine.blocks import BlockWriter
    from modelmerger.engine.cancelling import never
    from modelmerger.engine.devices import slice_device
    from modelmerger.engine.measuring import Measurer
    from modelmerger.engine.merge import Merge
    from modelmerger.engine.output_blocks import OutputBlocks
    from modelmerger.engine.tensors import SliceMerger
    from modelmerger.engine.work import node as of_node
    from modelmerger.engine.work.executing import compiled
    from modelmerger.engine.work.worker import DeviceInUse, MergeWorker
    from modelmerger.output.staged_files import SharedFiles

    node = node or os.uname().nodename
    of_node.check_places(order, node)
    registry = Registry.installed()
    of_node.check_plugins(order, of_node.plugins_of(registry.providers), node)
    settings, hooks = resolve(order.config, registry)
    of_node.check_no_more_plugins(order, hooks.all_providers, node)
    with ExitStack() as closing:
        closing.enter_context(one_thread_each())
        ready = closing.enter_context(
            prepare(settings, hooks, locate=where_located(order.located), merged=MergedCheckpoint)
        )
        ready = with_digest(ready)
        of_node.check_plan(order, ready.plan.digest, ready.plan.decides, node)
        files = closing.enter_context(
            SharedFiles(Path(order.tree), ready.plan.layout, order.token, direct=ready.plan.direct)
        )
        device = slice_device(ready.settings.options.device_map)
        merge = compiled(Merge(ready.plan, ready.sources, ready.hooks, ready.settings, device))
        slices = SliceMerger(merge, Measurer(merge))
        blocks = BlockWriter(slices, OutputBlocks(ready.plan), files, never)
        shared = _Shared(f"process {os.getpid()} on node '{node}'", closing.pop_all(), count)
        in_use = DeviceInUse(device)
        return [_OpenWorker(MergeWorker(blocks, in_use), shared) for _ in range(count)]


class _Shared:
    """What the workers of a process have together, closed by the last of them."""

    def __init__(self, name: str, closing: ExitStack, workers: int) -> None:
        self.name = name
        self._closing, self._left, self._lock = closing, workers, threading.Lock()

    def leave(self) -> None:
        """Called once by each worker."""
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._closing.close()


@define(eq=False)
class _OpenWorker:
    _worker: Worker
    _shared: _Shared
    _closed: bool = False

    def do(self, task: Task, then: Task | None = None) -> Done:
        return evolve(self._worker.do(task, then), worker=self._shared.name)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._worker.close()
            self._shared.leave()


def where_located(located: Sequence[tuple[str, str, str]]) -> Callable[[ModelReference], Location]:
    """Finds models where an order says that they are, and nowhere else. located: as in `WorkOrder`."""
    places = {path: Location(Path(directory), revision) for path, directory, revision in located}

    def locate(reference: ModelReference) -> Location:
        if reference.path not in places:
            raise MergeError(f"the work order does not say where {reference.path!r} is.")
        return places[reference.path]

    return locate
