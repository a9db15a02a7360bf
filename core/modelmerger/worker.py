"""A worker of a merge that another process runs: rebuilt from its work order, with the same plan or not at all."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen

from modelmerger.config.resolve import resolve
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.planning.prepared import Prepared, prepare
from modelmerger.values.errors import MergeError
from modelmerger.values.model_reference import Location, ModelReference
from modelmerger.values.work.units import Done, Task, Worker, WorkOrder


def open_worker(order: WorkOrder) -> Worker:
    """Opens the models of a merge that runs elsewhere, and returns what does its tasks; close it at the end.

    Nothing is looked for: models are where the order says. Raises `MergeError` where the config, the inputs, the
    plugins or the machine's arithmetic come to other bytes than those of the run.
    """
    from modelmerger.engine.arithmetic_digest import with_digest
    from modelmerger.engine.blocks import BlockWriter
    from modelmerger.engine.cancelling import never
    from modelmerger.engine.devices import slice_device
    from modelmerger.engine.measuring import Measurer
    from modelmerger.engine.merge import Merge
    from modelmerger.engine.output_blocks import OutputBlocks
    from modelmerger.engine.tensors import SliceMerger
    from modelmerger.engine.work.executing import compiled
    from modelmerger.engine.work.worker import DeviceInUse, MergeWorker
    from modelmerger.output.staged_files import SharedFiles

    settings, hooks = resolve(order.config)
    with ExitStack() as closing:
        ready = closing.enter_context(
            prepare(settings, hooks, locate=where_located(order.located), merged=MergedCheckpoint)
        )
        ready = with_digest(ready)
        _check_plan(order, ready)
        files = closing.enter_context(
            SharedFiles(Path(order.tree), ready.plan.layout, order.token, direct=ready.plan.direct)
        )
        device = slice_device(ready.settings.options.device_map)
        merge = compiled(Merge(ready.plan, ready.sources, ready.hooks, ready.settings, device))
        slices = SliceMerger(merge, Measurer(merge))
        blocks = BlockWriter(slices, OutputBlocks(ready.plan), files, never)
        return _OpenWorker(MergeWorker(blocks, DeviceInUse(device)), closing.pop_all())


@frozen(eq=False)
class _OpenWorker:
    _worker: Worker
    _closing: ExitStack

    def do(self, task: Task, then: Task | None = None) -> Done:
        from modelmerger.engine.arithmetic import one_thread_each

        with one_thread_each():
            return self._worker.do(task, then)

    def close(self) -> None:
        self._worker.close()
        self._closing.close()


def where_located(located: Sequence[tuple[str, str, str]]) -> Callable[[ModelReference], Location]:
    """Finds models where an order says that they are, and nowhere else. located: as in `WorkOrder`."""
    places = {path: Location(Path(directory), revision) for path, directory, revision in located}

    def locate(reference: ModelReference) -> Location:
        if reference.path not in places:
            raise MergeError(f"the work order does not say where {reference.path!r} is.")
        return places[reference.path]

    return locate


def _check_plan(order: WorkOrder, ready: Prepared) -> None:
    if ready.plan.digest != order.plan:
        ours = ready.plan.decides
        differing = [part for part in {**order.decides, **ours} if order.decides.get(part) != ours.get(part)]
        raise MergeError(f"this worker would come to another plan than the run: {', '.join(differing)} differ here.")
