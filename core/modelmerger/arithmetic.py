"""Numbers: slices in the dtype of the arithmetic, sums that begin with their first product, and checks for NaN and infinity."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from modelmerger.checkpoint import Checkpoint
from modelmerger.dtypes import DTYPES, max_finite
from modelmerger.errors import NumericError, Problem
from modelmerger.plan import TensorPlan
from modelmerger.text import amount

if TYPE_CHECKING:
    from torch import Tensor

COMPUTE = {"F32": torch.float32, "F64": torch.float64}
LET_THROUGH = "Repair the model, or set allow_nonfinite: true to let them through"
SCANNED = 1 << 18
"""Elements looked at in one go when a NaN is searched for."""


class Workspace:
    """The reusable memory of one worker: one buffer a purpose, grown to its largest use."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._bytes_read = 0

    def tensor(self, purpose: str, elements: int, dtype: torch.dtype) -> "Tensor":
        """An uninitialised vector; the same memory for the same purpose, each time."""
        length = elements * dtype.itemsize
        buffer = self._buffers.get(purpose)
        if buffer is None or buffer.numel() < length:
            buffer = self._buffers[purpose] = torch.empty(length, dtype=torch.uint8)
        return buffer[:length].view(dtype)

    def read(self, checkpoint: Checkpoint, name: str, start: int, stop: int) -> "Tensor":
        """Elements of a stored tensor, in the stored dtype, in memory that the next read reuses.

        What torch has no dtype for comes as bytes.
        """
        info = checkpoint.tensors[name]
        raw = self.tensor("raw", info.span(start, stop)[1], torch.uint8)
        content = bytes_of(raw)
        checkpoint.read(name, start, stop, content)
        self._bytes_read += len(content)
        dtype = getattr(torch, DTYPES[info.dtype].torch_name or "", None)
        return raw if dtype is None else raw.view(dtype)

    def take_bytes_read(self) -> int:
        """How many bytes were read since the last call."""
        count, self._bytes_read = self._bytes_read, 0
        return count


def bytes_of(vector: "Tensor") -> memoryview:
    """The memory of a contiguous tensor."""
    return vector.view(torch.uint8).numpy().data


def combined(terms: Iterable[tuple[float, "Tensor"]], total: "Tensor", term: "Tensor") -> "Tensor":
    """Σ coefficient · tensor in the dtype of `total`: first product, then added one by one; coefficient 1 is no product.

    Product and sum are separate operations on purpose: a fused one rounds otherwise in some lanes of some machines.
    """
    first = True
    for coefficient, tensor in terms:
        target = total if first else term
        target.copy_(tensor)
        if coefficient != 1:
            target.mul_(coefficient)
        if not first:
            total.add_(term)
        first = False
    return total


def extremes(tensor: "Tensor") -> tuple[float, float]:
    """The smallest and the largest element of a floating tensor; NaN for both where it holds a NaN."""
    low, high = torch.aminmax(tensor)
    return float(low), float(high)


def are_finite(tensors: Iterable["Tensor"]) -> bool:
    """Whether no tensor holds a NaN or an infinity."""
    return all(math.isfinite(end) for tensor in tensors for end in extremes(tensor))


def overflows(low: float, high: float, written: "Tensor", dtype: str) -> bool:
    """Whether finite values from `low` to `high` were rounded beyond the largest finite number of the written dtype.

    The written values alone do not tell: torch's conversion to some float8 dtypes stops at the largest number.
    """
    largest, reach = max_finite(dtype), max(-low, high)
    if reach <= largest:
        return False
    half_unit = math.ldexp(torch.finfo(written.dtype).eps, math.frexp(largest)[1] - 2)
    return reach > largest + half_unit or not torch.isfinite(written.to(torch.float64)).all()


def gram_of(tensors: Sequence["Tensor"]) -> "Tensor":
    """The Gram matrix of some float64 vectors, float64."""
    gram = torch.empty(len(tensors), len(tensors), dtype=torch.float64)
    for i, left in enumerate(tensors):
        for j, right in enumerate(tensors[: i + 1]):
            gram[i, j] = gram[j, i] = torch.dot(left, right)
    return gram


def raise_nonfinite(
    plan: TensorPlan, checkpoints: Sequence[Checkpoint], rounded: bool, remedy: str = LET_THROUGH
) -> None:
    """Raises the `NumericError` of a tensor that came out not finite: the input to blame, or the merge, or the rounding.

    rounded: whether the merged values were finite before they were rounded to the written dtype. remedy: for a bad input.
    """
    problems = []
    for index in plan.inputs:
        nans, infinities = _count_nonfinite(checkpoints[index], plan.renames.get(index, plan.name))
        if nans or infinities:
            parts = [amount(nans, "NaN")] * bool(nans) + [amount(infinities, "infinity", "infinities")] * bool(
                infinities
            )
            problems.append(
                Problem(
                    f"'{checkpoints[index].name}' holds {' and '.join(parts)}. {remedy}.",
                    checkpoints[index].place,
                    plan.name,
                )
            )
    if not problems:
        cause = (
            f"the values do not fit in {plan.dtype}, the dtype written"
            if rounded
            else "the merge itself made a NaN or an infinity"
        )
        advice = "Choose a wider torch_dtype" if rounded else "Check weights and options"
        problems.append(Problem(f"all inputs are finite, and {cause}. {advice}.", tensor=plan.name))
    raise NumericError(*problems)


def _count_nonfinite(checkpoint: Checkpoint, name: str) -> tuple[int, int]:
    """How many NaN and how many infinities a stored tensor holds."""
    nans = infinities = 0
    workspace = Workspace()
    elements = checkpoint.tensors[name].elements
    for start in range(0, elements, SCANNED):
        values = workspace.read(checkpoint, name, start, min(elements, start + SCANNED)).to(torch.float64)
        nans += int(values.isnan().sum())
        infinities += int(values.isinf().sum())
    return nans, infinities
