"""Whether two tensors of a model are the same numbers."""

from collections.abc import Iterable

from modelmerger.values.checkpoint import Checkpoint

_COMPARED = 1 << 20
_SAMPLES, _SAMPLED = 16, 1 << 14


def same_numbers(checkpoint: Checkpoint, first: str, second: str) -> bool:
    """Whether two tensors of one dtype and shape have equal bits. Reads them as far as they are equal.

    Tensors of a merge that is not written count as different.
    """
    elements = checkpoint.tensors[first].elements
    starts = range(0, elements, _COMPARED)
    return _equal(checkpoint, first, second, ((start, min(elements, start + _COMPARED)) for start in starts))


def seem_the_same(checkpoint: Checkpoint, first: str, second: str) -> bool:
    """The same from a few samples: matrices that training has moved apart differ nearly everywhere."""
    elements = checkpoint.tensors[first].elements
    starts = sorted({elements * part // _SAMPLES for part in range(_SAMPLES)})
    return _equal(checkpoint, first, second, ((start, min(elements, start + _SAMPLED)) for start in starts))


def _equal(checkpoint: Checkpoint, first: str, second: str, ranges: Iterable[tuple[int, int]]) -> bool:
    if checkpoint.merge is not None:  # its numbers are made, not read
        return False
    for start, stop in ranges:
        found = []
        for name in (first, second):
            buffer = bytearray(checkpoint.tensors[name].span(start, stop)[1])
            checkpoint.read(name, start, stop, memoryview(buffer))
            found.append(buffer)
        if found[0] != found[1]:
            return False
    return True
