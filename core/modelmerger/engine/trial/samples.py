"""Which tensors of a plan are tried out: some of each kind, cut to what can be merged in the time."""

from collections.abc import Iterator, Sequence
from math import prod

from attrs import evolve, frozen

from modelmerger.planning.slices import MEASURED
from modelmerger.values.checkpoint import TensorInfo
from modelmerger.values.layout import Layout, OutputFile, OutputTensor, Placement
from modelmerger.values.plan import MergePlan
from modelmerger.values.tensor_plan import TensorPlan

SHAPES = 6
"""Of a kind, that are tried out at most: those with the most elements."""
WHOLE_SHAPES = 2
"""The same where tensors are merged whole: the largest, since a high matrix takes other memory than a wide one."""
SPREAD = 256
"""Tensors of which a little is read, at most, so that what keeps something of its inputs does so."""
SLICES = 16
"""Of a sample, at most: the memory of the first ones is used again, and not always as well as it could be."""


@frozen(eq=False)
class Sample:
    """Tensors of one kind and shape, two of which are tried out."""

    tensors: Sequence[TensorPlan]
    """All of them, in the order of the plan."""
    share: int
    """Elements that the sample stands for: its own, and its part of those of shapes that are not tried out."""

    @property
    def early(self) -> TensorPlan:
        """What is tried first, a little of it. Another one if there is one, since something of it may be kept."""
        return self.tensors[0]

    @property
    def late(self) -> TensorPlan:
        """What is tried last."""
        return self.tensors[len(self.tensors) // 2]

    @property
    def whole(self) -> bool:
        """Whether the strategy sees the tensors whole."""
        return self.late.granularity == "whole"


def samples(plan: MergePlan) -> list[Sample]:
    """What is tried out of a plan, what a strategy sees whole first. Empty tensors are not."""
    kinds: dict[tuple[object, ...], dict[tuple[int, ...], list[TensorPlan]]] = {}
    for tensor in plan.tensors:
        if tensor.elements:
            measured = tensor.action == "combine" and tensor.coefficients is None
            kind = tensor.granularity != "whole", tensor.action, measured, tensor.granularity, len(tensor.inputs)
            kinds.setdefault((*kind, tensor.compute, tensor.dtype), {}).setdefault(tensor.shape, []).append(tensor)
    return [sample for kind in sorted(kinds, key=str) for sample in _of_kind(list(kinds[kind].values()))]


def _of_kind(shapes: Sequence[Sequence[TensorPlan]]) -> list[Sample]:
    """The shapes of a kind that are tried out. What is merged whole takes time, so that there are few of it."""
    by_size = sorted(shapes, key=lambda tensors: tensors[0].elements, reverse=True)
    if by_size[0][0].granularity == "whole":
        chosen = by_size[:WHOLE_SHAPES]
    else:
        chosen = sorted(shapes, key=_elements, reverse=True)[:SHAPES]
        if by_size[0] not in chosen:
            chosen[-1] = by_size[0]
    total, tried = sum(map(_elements, shapes)), sum(map(_elements, chosen))
    return [Sample(tensors, _elements(tensors) * total // tried) for tensors in chosen]


def _elements(tensors: Sequence[TensorPlan]) -> int:
    return sum(tensor.elements for tensor in tensors)


def spread(tensors: Sequence[TensorPlan]) -> list[TensorPlan]:
    """At most `SPREAD` tensors from all over a plan."""
    filled = [tensor for tensor in tensors if tensor.elements]
    return filled[:: max(1, -(-len(filled) // SPREAD))]


def enough(tensor: TensorPlan, slice_elements: int) -> int:
    """Elements of a tensor that show what its slices take: so many slices, or all of what is merged whole."""
    if tensor.granularity == "whole":
        return tensor.elements
    row = tensor.shape[-1] if tensor.granularity == "rowwise" and tensor.shape else 1
    return min(tensor.elements, SLICES * max(slice_elements, MEASURED, row))


def cut(tensor: TensorPlan, elements: int) -> TensorPlan:
    """The beginning of a tensor, of about so many elements and as many dimensions; rows stay as long as they are."""
    if elements >= tensor.elements:
        return tensor
    shape = list(tensor.shape)
    if tensor.granularity == "whole":
        share = (elements / tensor.elements) ** (1 / len(shape))
        return evolve(tensor, shape=tuple(max(1, round(share * side)) for side in shape))
    for number in range(len(shape)):
        behind = prod(shape[number + 1 :])
        if behind * shape[number] <= elements:
            break
        if number < len(shape) - 1 or tensor.granularity != "rowwise":
            shape[number] = max(1, elements // behind)
    return evolve(tensor, shape=tuple(shape))


def trial_plan(plan: MergePlan, tensors: Sequence[TensorPlan]) -> MergePlan:
    """The plan of merging these alone, in one thread, each into a file of its own."""
    files = list(_files(tensors))
    layout = Layout(plan.layout.format, files)
    return evolve(plan, tensors=tensors, layout=layout, workers=1, bytes_written=sum(file.size for file in files))


def _files(tensors: Sequence[TensorPlan]) -> Iterator[OutputFile]:
    for number, tensor in enumerate(tensors):
        size = TensorInfo(tensor.dtype, tensor.shape).bytes
        placed = Placement(OutputTensor(tensor.name, tensor.dtype, tensor.shape, size), 0)
        yield OutputFile(str(number), size, (), [placed])
