"""A planned merge is carried out: its work is handed to whoever executes it, until a sink has every block."""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from modelmerger.engine.arithmetic import one_thread_each
from modelmerger.engine.compiling import compile_function
from modelmerger.engine.merge import Merge
from modelmerger.engine.work.elsewhere import Elsewhere
from modelmerger.engine.work.schedule import Schedule
from modelmerger.hooks.assembly import Hooks
from modelmerger.output.sink import Sink
from modelmerger.values.errors import MergeError
from modelmerger.values.layout import BLOCK
from modelmerger.values.plan import MergePlan
from modelmerger.values.work.units import SliceWork


def carry_out(
    merge: Merge,
    sink: Sink,
    advance: Callable[[int], None],
    elsewhere: Elsewhere | None = None,
    others: AbstractSet[tuple[int, int]] = frozenset(),
) -> None:
    """Makes every block that the sink does not have. Raises `MergeError`.

    advance, elsewhere, others: as in `Schedule`.
    """
    work = Schedule(compiled(merge), sink, advance, elsewhere, others)
    execute(work, merge.hooks, work)
    if bytes_of_blocks(sink.records.keys() | others, merge.plan) != merge.plan.bytes_written:
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
    if not isinstance(error, MergeError | MemoryError | KeyboardInterrupt):
        raise hooks.output.executor_error(error) from error
    raise error


def bytes_of_blocks(blocks: Iterable[tuple[int, int]], plan: MergePlan) -> int:
    """How many bytes these blocks have, which are given by file and block."""
    sizes = [file.size for file in plan.layout.files]
    return sum(min(BLOCK, sizes[file] - block * BLOCK) for file, block in blocks)
