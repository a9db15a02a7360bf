"""A planned merge is carried out: its work is handed to whoever executes it, until a sink has every block."""

from collections.abc import Callable, Mapping

from modelmerger.engine.arithmetic import one_thread_each
from modelmerger.engine.compiling import compile_function
from modelmerger.engine.merge import Merge
from modelmerger.engine.work.schedule import Schedule
from modelmerger.hooks.assembly import Hooks
from modelmerger.output.sink import Sink
from modelmerger.values.errors import MergeError
from modelmerger.values.layout import BLOCK
from modelmerger.values.plan import MergePlan
from modelmerger.values.work.block_record import BlockRecord
from modelmerger.values.work.units import SliceWork, WorkOrder


def carry_out(
    merge: Merge,
    sink: Sink,
    advance: Callable[[int], None],
    order: Callable[[], WorkOrder] | None = None,
    token: str = "",
) -> None:
    """Makes every block that the sink does not have. Raises `MergeError`.

    advance, order, token: as in `Schedule`.
    """
    work = Schedule(compiled(merge), sink, advance, order, token)
    execute(work, merge.hooks, work)
    if bytes_of_blocks(sink.records, merge.plan) != merge.plan.bytes_written:
        raise merge.hooks.output.unfinished_error()


def compiled(merge: Merge) -> Merge:
    """The merge, with the strategy's arithmetic compiled if the user wants that."""
    if merge.settings.options.torch_compile:
        merge.hooks.strategy.compile_merge(compile_function)
    return merge


def execute(schedule: Schedule, hooks: Hooks, work: SliceWork) -> None:
    """Hands the work to the executor, and ends the schedule. Raises the first error of any worker.

    work: the schedule, or what stands for it.
    """
    try:
        with one_thread_each():
            hooks.output.run_slices(work)
    finally:
        schedule.end()
    if (error := schedule.error) is None:
        return
    if isinstance(error, Exception) and not isinstance(error, MergeError | MemoryError):
        raise hooks.output.executor_error(error) from error
    raise error


def bytes_of_blocks(records: Mapping[tuple[int, int], BlockRecord], plan: MergePlan) -> int:
    """How many bytes the blocks have that are done."""
    sizes = [file.size for file in plan.layout.files]
    return sum(min(BLOCK, sizes[file] - block * BLOCK) for file, block in records)
