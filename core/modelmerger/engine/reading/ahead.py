"""Checkpoints hear what will be read of them soon, in the order in which it will be."""

from modelmerger.engine.merge import Merge
from modelmerger.inputs.direct.amounts import piece_for
from modelmerger.planning.slices import slices
from modelmerger.values.tensor_plan import TensorPlan


def read_ahead(merge: Merge, tensor: TensorPlan, start: int, stop: int) -> None:
    """Says that elements `start` to `stop` of a tensor will be made next, unless options forbid to read ahead."""
    if not merge.settings.options.reads_ahead:
        return
    together = piece_for(merge.plan.workers)  # elements of all inputs, before the next ones of the first input
    stride = max(1, together // max(1, len(tensor.inputs)) // merge.plan.slice_elements) * merge.plan.slice_elements
    for part in slices(tensor, start, stop, stride):
        for number in tensor.inputs[:1] if tensor.action == "copy" else tensor.inputs:
            merge.checkpoints[number].prefetch(tensor.name_in(number), part.first, part.last)
