"""A planned merge is carried out: its work is handed to whoever executes it, until a sink has every block."""

from collections.abc import Callable, Mapping

from modelmerger.engine.arithmetic import one_thread_each
from modelmerger.engine.blocks import MergeWork
from modelmerger.engine.compiling import compile_function
from modelmerger.engine.merge import Merge
from modelmerger.output.journal import BlockRecord
from modelmerger.output.sink import Sink
from modelmerger.values.layout import BLOCK
from modelmerger.values.plan import MergePlan


def carry_out(merge: Merge, sink: Sink, advance: Callable[[int], None]) -> None:
    """Makes every block that the sink does not have. Raises `MergeError`.

    advance: called with the bytes that were read and written since the last call, from any thread.
    """
    if merge.settings.options.torch_compile:
        merge.hooks.strategy.compile_merge(compile_function)
    with one_thread_each():
        merge.hooks.output.run_slices(MergeWork(merge, sink, advance))
    if bytes_of_blocks(sink.records, merge.plan) != merge.plan.bytes_written:
        raise merge.hooks.output.unfinished_error()


def bytes_of_blocks(records: Mapping[tuple[int, int], BlockRecord], plan: MergePlan) -> int:
    """How many bytes the blocks have that are done."""
    sizes = [file.size for file in plan.layout.files]
    return sum(min(BLOCK, sizes[file] - block * BLOCK) for file, block in records)
