"""What a merge will cost: how much is done at a time, the bytes that are read, the memory that is needed."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.inputs.direct.aligned import pages_for
from modelmerger.inputs.direct.amounts import held_for
from modelmerger.planning.slices import CROWD, MEASURED, OBSERVED, WINDOW, crowding, window
from modelmerger.values.checkpoint import Checkpoint, TensorInfo
from modelmerger.values.layout import BLOCK
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.settings import Settings
from modelmerger.values.tensor_plan import TensorPlan

MOST_SLICE, FRUGAL_SLICE, LEAST_SLICE = 1 << 19, 1 << 16, OBSERVED
"""Elements in a slice: the default, those in low_memory_mode, and the fewest."""
BEHIND = 2
"""Windows of a worker that are being written at a time, while it makes the next one."""
PROCESS_MEMORY = 250 << 20
"""Resident bytes of Python with torch and modelmerger imported."""


def slice_elements(options: CoreOptions, tensors: Sequence[TensorPlan]) -> int:
    """Elements in a slice. They are fewer where a strategy gets slices of many models at once, or where there are many
    workers, to bound the memory.
    """
    if options.low_memory_mode:
        return FRUGAL_SLICE
    together = max((len(tensor.inputs) for tensor in tensors if tensor.action == "merge"), default=1)
    most = max(1, together // 2) * crowding(options.workers)
    return max(LEAST_SLICE, MOST_SLICE // most // OBSERVED * OBSERVED)


def rounds_of(tensor: TensorPlan) -> int:
    """How often a tensor is measured before it is merged, at most."""
    if tensor.action == "combine":
        return int(tensor.coefficients is None)
    return tensor.rounds


def bytes_measured(checkpoints: Sequence[Checkpoint], tensor: TensorPlan) -> int:
    """How many bytes are read to measure a tensor, as far as it is known before."""
    if not tensor.measured:
        return 0
    return bytes_in(checkpoints, tensor) * tensor.measured // max(1, tensor.elements)


def bytes_in(checkpoints: Sequence[Checkpoint], tensor: TensorPlan) -> int:
    """How many bytes are read for the inputs of a tensor, all of them once."""
    return sum(_bytes_of_inputs(checkpoints, tensor))


def bytes_read(checkpoints: Sequence[Checkpoint], tensor: TensorPlan) -> int:
    """How many bytes are read to make one tensor: what each round wants of its inputs, and all when it is merged."""
    if tensor.action == "copy":
        return _bytes_of_inputs(checkpoints, tensor)[0]
    return bytes_in(checkpoints, tensor) + bytes_measured(checkpoints, tensor)


def bytes_compared(checkpoints: Sequence[Checkpoint], tensors: Iterable[TensorPlan]) -> int:
    """How many bytes are read before the first write: of tensors that are copied, and that several models have."""
    copied = [tensor for tensor in tensors if tensor.action == "copy" and len(tensor.inputs) > 1]
    return sum(bytes_in(checkpoints, tensor) for tensor in copied)


def _bytes_of_inputs(checkpoints: Sequence[Checkpoint], tensor: TensorPlan) -> list[int]:
    return [checkpoints[i].bytes_to_read(tensor.name_in(i), 0, tensor.elements) for i in tensor.inputs]


def bytes_held(checkpoints: Sequence[Checkpoint], tensor: TensorPlan) -> int:
    """How many bytes of memory all inputs of a tensor take as they are stored, in whole pages."""
    return sum(pages_for(checkpoints[i].tensors[tensor.name_in(i)].bytes) for i in tensor.inputs)


def from_device(ways: Mapping[str, str], checkpoints: Sequence[Checkpoint], tensor: TensorPlan) -> bool:
    """Whether a tensor is measured, and inputs of it come from a device, so that they are kept until they are merged.

    From the page cache, a second reading costs next to nothing. ways: those of a plan.
    """
    if not rounds_of(tensor):
        return False
    return any(ways.get(file.path) == "direct" for i in tensor.inputs for file in checkpoints[i].files)


def worker_memory(hooks: Hooks, settings: Settings, tensors: Sequence[TensorPlan], elements: int) -> int:
    """Bytes that a worker holds at once: a raw slice and the converted ones. elements: in a slice."""
    width = 8 if any(tensor.compute == "F64" for tensor in tensors) else 4
    held = ("merge", "combine") if hooks.observers.wanted(settings) else ("merge",)
    together = max((len(tensor.inputs) for tensor in tensors if tensor.action in held), default=0)
    whole = max((tensor.elements for tensor in tensors if tensor.granularity == "whole"), default=0)
    most = max(elements, whole)
    task_vectors = together if hooks.strategy.traits.inputs == "updates" else 0
    slices = 8 * most + width * (most * (together + task_vectors + 2) + whole * hooks.strategy.traits.copies)
    measured = [len(t.inputs) for t in tensors if t.action == "combine" and t.coefficients is None]
    gram = 8 * MEASURED * max(measured, default=0)
    return slices + gram


def most_kept(options: CoreOptions, tensors: Iterable[TensorPlan]) -> int:
    """How many bytes of inputs may be kept for all workers together: `memory`, less what many workers measure in."""
    measured = max((len(tensor.inputs) for tensor in tensors if rounds_of(tensor)), default=0)
    many = max(0, options.workers - CROWD // 2)
    return max(0, options.kept_bytes - many * 8 * MEASURED * measured)


@frozen
class Kept:
    """What is kept of the inputs of tensors from when they are measured until they are merged."""

    most: int
    """Bytes that are kept at a time."""
    reused: int
    """Bytes that are not read again because of it, in all rounds."""


def kept_inputs(
    ways: Mapping[str, str], checkpoints: Sequence[Checkpoint], tensors: Sequence[TensorPlan], workers: int, memory: int
) -> Kept:
    """What is kept where at most `memory` bytes may be.

    A tensor is measured while the blocks before it are written, and goes with the blocks that it is merged into.
    """
    most, reused, end = 0, 0, 0
    before: deque[tuple[int, int, int]] = deque()  # where a tensor begins and ends in the output, and what is kept
    for tensor in tensors:
        begin, end = end, end + TensorInfo(tensor.dtype, tensor.shape).bytes
        if not from_device(ways, checkpoints, tensor):
            continue
        written = begin - (workers + 2) * BLOCK
        while before and before[0][1] <= written:
            before.popleft()
        left = sum(kept * (stop - max(start, written)) // (stop - start) for start, stop, kept in before)
        needed = bytes_held(checkpoints, tensor)
        own = max(0, min(needed, memory - left))
        most = max(most, left + own)
        reused += rounds_of(tensor) * bytes_in(checkpoints, tensor) * own // max(1, needed)
        before.append((begin, max(end, begin + 1), own))
    return Kept(most, reused)


def memory_parts(workers: int, held: int, moving: Mapping[str, int]) -> dict[str, int]:
    """What the expected peak is made of, in bytes, as long as nothing was tried: the process, all workers, and what is
    on its way from or to the disk.

    One block for each worker covers its window of output (a whole block where strategies see rows) and what the
    allocator keeps. held: by a worker, besides that. moving: see `moving_parts`.
    """
    return {"process": PROCESS_MEMORY, "workers": workers * (BLOCK + held), **moving}


def moving_parts(
    ways: Mapping[str, str], tensors: Iterable[TensorPlan], workers: int, kept: int, *, direct: bool
) -> dict[str, int]:
    """Bytes of what is read ahead, kept, and written behind; nothing where all goes through the page cache.

    direct: whether the output is written past it.
    """
    reading = workers * held_for(workers) * any(way == "direct" for way in ways.values())
    size = window(tensors, workers)
    writing = workers * BEHIND * size * (direct and size <= WINDOW)
    parts = {"reading": reading, "kept": kept, "writing": writing}
    return {part: size for part, size in parts.items() if size}
