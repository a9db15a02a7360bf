"""Checkpoints hear what will be read of them soon, in the order in which it will be."""

from modelmerger.engine.merge import Merge
from modelmerger.planning.slices import slices
from modelmerger.values.tensor_plan import TensorPlan

STRIDE = 1 << 22
"""Elements of all inputs together that are asked for before the next ones of the first input are."""


def read_ahead(merge: Merge, tensor: TensorPlan, start: int, stop: int) -> None:
    """Says that elements `start` to `stop` of a tensor will be made next, unless options forbid to read ahead."""
    if not merge.settings.options.reads_ahead:
        return
    stride = max(1, STRIDE // max(1, len(tensor.inputs)) // merge.plan.slice_elements) * merge.plan.slice_elements
    for part in slices(tensor, start, stop, stride):
        for number in tensor.inputs[:1] if tensor.action == "copy" else tensor.inputs:
            merge.checkpoints[number].prefetch(tensor.name_in(number), part.first, part.last)
