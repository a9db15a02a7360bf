"""Which blocks of a merge each of several shares makes: runs of them, so that few tensors lie in two shares."""

from modelmerger.engine.output_blocks import OutputBlocks
from modelmerger.values.plan import MergePlan
from modelmerger.values.work.part import Part


def blocks_of_part(plan: MergePlan, part: Part) -> frozenset[tuple[int, int]]:
    """Those of one share, by file and block. All shares together have each block once.

    Blocks that must be made together are in one share, that of the first of them.
    """
    blocks = OutputBlocks(plan)
    runs = [(number, *run) for number, file in enumerate(plan.layout.files) for run in blocks.runs(file)]
    count = sum(last - first for _, first, last in runs)
    found: list[tuple[int, int]] = []
    before = 0
    for file, first, last in runs:
        if before * part.of // count == part.number:
            found += ((file, block) for block in range(first, last))
        before += last - first
    return frozenset(found)
