"""How a tensor is cut: into vectors of elements, into rows, or not at all."""

from collections.abc import Iterable, Iterator

from attrs import frozen

from modelmerger.values.layout import BLOCK
from modelmerger.values.tensor_plan import TensorPlan

MEASURED = 1 << 18
"""Elements that a statistic is taken over at a time: fixed, so that sums do not depend on slices or threads."""

OBSERVED = 1 << 14
"""Elements. Slices of elementwise strategies are multiples of it, so that a statistic of so many is always the same."""

WINDOW = 1 << 20
"""Bytes of output that are made, digested and written in one go, at most: few enough to stay in the cache of a core."""


CROWD = 8
"""Workers from which on more of them make each one's memory smaller."""


@frozen
class Slice:
    """Some elements of a flattened tensor, and those that must be read to compute them."""

    start: int
    """The first element that is wanted."""
    stop: int
    """The element behind the last one that is wanted."""
    first: int
    """The first element that is read."""
    last: int
    """The element behind the last one that is read."""
    shape: tuple[int, ...]
    """The shape in which a strategy sees what is read."""


def slices(tensor: TensorPlan, start: int, stop: int, most: int) -> Iterator[Slice]:
    """Cuts elements `start` to `stop` of a tensor into slices of about `most` elements, of whole rows, or into one."""
    if tensor.granularity == "whole":
        yield Slice(start, stop, 0, tensor.elements, tensor.shape)
    elif tensor.granularity == "rowwise":
        row = row_length(tensor)
        rows = max(1, most // row)
        for first in range(start // row, -(-stop // row), rows):
            last = min(first + rows, -(-stop // row))
            wanted = max(start, first * row), min(stop, last * row)
            yield Slice(*wanted, first * row, last * row, (last - first, row))
    else:
        for first in range(start, stop, most):
            last = min(first + most, stop)
            yield Slice(first, last, first, last, (last - first,))


def crowding(workers: int) -> int:
    """By how much smaller slices and windows are where there are many workers: 1, 2, 4, ... for up to 8, 16, 32 ...

    All workers together so take no more memory than 8 of them.
    """
    return 1 << ((workers - 1) // CROWD).bit_length()


def window(tensors: Iterable[TensorPlan], workers: int) -> int:
    """Bytes of output that a worker makes in one go: `WINDOW` at most, fewer where there are many workers.

    A block if the strategy sees rows of a tensor, as a row that a window cuts is merged twice.
    """
    if all(tensor.granularity == "elementwise" for tensor in tensors):
        return WINDOW // crowding(workers)
    return BLOCK


def row_length(tensor: TensorPlan) -> int:
    """The elements of a row, which is the last dimension; a vector is one row, a scalar a row of one element."""
    return tensor.shape[-1] if tensor.shape else 1
