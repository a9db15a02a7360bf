"""Arithmetic on slices: buffers, sums that begin with their first product, and checks for NaN and infinity."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

import torch

from modelmerger.engine.merge import CPU, Merge
from modelmerger.hooks.faults import reading_fault
from modelmerger.hooks.providers import is_ours
from modelmerger.inputs.direct.aligned import PAGE
from modelmerger.inputs.tensor_bytes import bytes_of
from modelmerger.values.checkpoint import Checkpoint, TensorInfo
from modelmerger.values.dtypes import DTYPES, max_finite
from modelmerger.values.errors import MergeError, NumericError, Problem
from modelmerger.values.tensor_plan import TensorPlan
from modelmerger.values.text import amount

if TYPE_CHECKING:
    from torch import Tensor

COMPUTE = {"F32": torch.float32, "F64": torch.float64}
"""The dtypes of the arithmetic, by the names that plans give them."""
LET_THROUGH = "Repair the model, or set allow_nonfinite: true to let them through"
SCANNED = 1 << 18
"""Elements looked at in one go when a NaN is searched for."""


class Workspace:
    """The reusable memory of one worker: one buffer for each purpose, grown to its largest use.

    device: where tensors for arithmetic are. Bytes that are read or written are in the machine's memory (`host`).
    """

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[str, Tensor] = {}
        self._memory: dict[str, memoryview] = {}
        self._bytes_read = 0

    def tensor(self, purpose: str, elements: int, dtype: torch.dtype) -> "Tensor":
        """An uninitialised vector on the device. The same purpose has the same memory each time."""
        return self._view(purpose, elements, dtype, self.device)

    def host(self, purpose: str, elements: int, dtype: torch.dtype) -> "Tensor":
        """An uninitialised vector in the machine's memory. The same purpose has the same memory each time."""
        return self._view(purpose, elements, dtype, CPU)

    def memory(self, purpose: str, length: int) -> memoryview:
        """The memory that `host` gives, as bytes."""
        memory = self._memory.get(purpose)
        if memory is None or len(memory) < length:
            memory = self._memory[purpose] = bytes_of(self._buffer(purpose, length, CPU))
        return memory[:length]

    def _view(self, purpose: str, elements: int, dtype: torch.dtype, device: torch.device) -> "Tensor":
        view = self._views.get(purpose)  # a slice is as long as the one before it, but for the last of a tensor
        if view is None or view.numel() != elements or view.dtype != dtype:
            length = elements * dtype.itemsize
            view = self._views[purpose] = self._buffer(purpose, length, device)[:length].view(dtype)
        return view

    def _buffer(self, purpose: str, length: int, device: torch.device) -> "Tensor":
        buffer = self._buffers.get(purpose)
        if buffer is None or buffer.numel() < length:
            room = torch.empty(length + PAGE * (device == CPU), dtype=torch.uint8, device=device)
            begin = -room.data_ptr() % PAGE if device == CPU else 0  # a device may write to it, or read from it
            buffer = self._buffers[purpose] = room[begin : begin + length]
            self._views.pop(purpose, None)
            self._memory.pop(purpose, None)
        return buffer

    def read(self, checkpoint: Checkpoint, name: str, start: int, stop: int, purpose: str = "raw") -> "Tensor":
        """Elements `start` to `stop` of a flattened tensor in the stored dtype, or as bytes if torch has no such dtype.

        They are in the machine's memory, which the next read for this purpose reuses.
        """
        return self.read_runs(checkpoint, name, [(start, stop)], purpose)

    def read_runs(
        self, checkpoint: Checkpoint, name: str, runs: Sequence[tuple[int, int]], purpose: str = "raw"
    ) -> "Tensor":
        """Elements of several ranges, laid end to end, as `read` gives those of one."""
        info = checkpoint.tensors[name]
        length = sum(info.span(start, stop)[1] for start, stop in runs)
        self.fill(checkpoint, name, runs, self.memory(purpose, length))
        dtype = _stored_dtype(info) or torch.uint8
        return self.host(purpose, length // dtype.itemsize, dtype)

    def fill(self, checkpoint: Checkpoint, name: str, runs: Sequence[tuple[int, int]], memory: memoryview) -> None:
        """Fills memory with ranges of elements of a flattened tensor in the stored dtype, laid end to end."""
        try:
            if len(runs) == 1:
                checkpoint.read(name, *runs[0], memory)
            else:
                checkpoint.read_ranges(name, runs, memory)
        except MergeError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, MemoryError) and is_ours(type(checkpoint)):
                raise
            raise reading_fault(checkpoint, error, name) from error
        for start, stop in runs:
            self.count(checkpoint, name, start, stop)

    def as_stored(self, checkpoint: Checkpoint, name: str, content: "Tensor") -> "Tensor":
        """Bytes as elements of the stored dtype, or as they are if torch has no such dtype."""
        dtype = _stored_dtype(checkpoint.tensors[name])
        return content if dtype is None else content.view(dtype)

    def count(self, checkpoint: Checkpoint, name: str, start: int, stop: int) -> None:
        """Adds what it takes to read these elements to the bytes read."""
        self._bytes_read += checkpoint.bytes_to_read(name, start, stop)

    def take_bytes_read(self) -> int:
        """How many bytes were read since the last call."""
        count, self._bytes_read = self._bytes_read, 0
        return count


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Lets torch compute in the calling threads alone, so that the workers are ours and sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _stored_dtype(info: TensorInfo) -> torch.dtype | None:
    """None if torch has no such dtype."""
    return getattr(torch, DTYPES[info.dtype].torch_name or "", None)


def factors(coefficients: "Tensor") -> list["Tensor | None"]:
    """Coefficients as `combine_into` takes them: None for 1, which needs no product. coefficients: a vector."""
    return [None if coefficient == 1 else coefficient for coefficient in coefficients]


def combine_into(
    factors: Iterable["Tensor | None"], inputs: Iterable["Tensor"], total: "Tensor", term: "Tensor"
) -> "Tensor":
    """Writes Σ factor · input into `total`, in its dtype: the first product, to which the others are added one by one.

    term: room for a product. Product and sum are separate operations on purpose: a fused one rounds differently in some
    lanes of some machines.
    """
    target = total
    for factor, values in zip(factors, inputs, strict=True):
        target.copy_(values)
        if factor is not None:
            target.mul_(factor)
        if target is term:
            total.add_(term)
        target = term
    return total


def sum_into(inputs: Sequence["Tensor"], coefficients: "Tensor", total: "Tensor") -> None:
    """Writes Σ coefficients[i] · inputs[i] into `total`, in its dtype. A compiler makes one loop of this function."""
    values = inputs[0].to(total.dtype) * coefficients[0]
    for number in range(1, len(inputs)):
        values = values + inputs[number].to(total.dtype) * coefficients[number]
    total.copy_(values)


def extremes(tensor: "Tensor") -> tuple[float, float]:
    """The smallest and the largest element of a floating tensor; both are NaN where it holds a NaN."""
    low, high = torch.aminmax(tensor)
    return float(low), float(high)


def has_finite_sum(tensor: "Tensor") -> bool:
    """Whether the sum shows that no element is NaN or infinite; if it does not, look at the `extremes`.

    It costs a quarter of what the extremes do, but may overflow, and torch cannot add up numbers of one byte.
    """
    return tensor.dtype.itemsize > 1 and math.isfinite(float(tensor.sum()))


def are_finite(tensors: Iterable["Tensor"]) -> bool:
    """Whether no tensor holds a NaN or an infinity."""
    return all(has_finite_sum(tensor) or all(map(math.isfinite, extremes(tensor))) for tensor in tensors)


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
    """The Gram matrix of n float64 vectors: float64 of shape (n, n)."""
    order = range(len(tensors))
    products = {(i, j): float(torch.dot(tensors[i], tensors[j])) for i in order for j in range(i + 1)}
    return torch.tensor([[products[max(i, j), min(i, j)] for j in order] for i in order], dtype=torch.float64)


def raise_nonfinite(plan: TensorPlan, merge: Merge, rounded: bool, remedy: str = LET_THROUGH) -> NoReturn:
    """Raises the `NumericError` of a tensor that is not finite. It blames an input, the merge, or the rounding.

    rounded: whether the merged values were finite before they were rounded to the written dtype. remedy: what to do
    about a bad input.
    """
    problems = [
        p for index in plan.inputs for p in _blamed(merge.checkpoints[index], plan.name_in(index), plan, merge, remedy)
    ]
    if not problems and merge.plan.composed and not rounded:
        raise merge.hooks.models.nonfinite_error(plan.name)
    if not problems:
        cause = (
            f"the values do not fit in {plan.dtype}, the dtype written"
            if rounded
            else "the merge itself made a NaN or an infinity"
        )
        advice = "Choose a wider torch_dtype" if rounded else "Check weights and options"
        problems.append(Problem(f"all inputs are finite, and {cause}. {advice}.", tensor=plan.name))
    raise NumericError(*problems)


def _blamed(checkpoint: Checkpoint, name: str, plan: TensorPlan, merge: Merge, remedy: str) -> list[Problem]:
    """Problems if a tensor is not finite: of the checkpoint, or of the models that the tensor is made of."""
    sources = checkpoint.made_of(name)
    found = [p for source, theirs in sources for p in _blamed(source, theirs, plan, merge, remedy)]
    if found or (sources and merge.plan.composed):  # else a composition would be blamed as if it were a model
        return list(dict.fromkeys(found))
    nans, infinities = _count_nonfinite(checkpoint, name)
    if not nans and not infinities:
        return []
    parts = [amount(nans, "NaN")] * bool(nans) + [amount(infinities, "infinity", "infinities")] * bool(infinities)
    message = f"'{checkpoint.name}' holds {' and '.join(parts)}. {remedy}."
    return [Problem(message, checkpoint.place, name if merge.plan.composed else plan.name)]


def _count_nonfinite(checkpoint: Checkpoint, name: str) -> tuple[int, int]:
    """How many NaN and how many infinities a tensor of a checkpoint holds."""
    nans = infinities = 0
    workspace = Workspace()
    elements = checkpoint.tensors[name].elements
    for start in range(0, elements, SCANNED):
        values = workspace.read(checkpoint, name, start, min(elements, start + SCANNED)).to(torch.float64)
        nans += int(values.isnan().sum())
        infinities += int(values.isinf().sum())
    return nans, infinities
