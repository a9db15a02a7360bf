"""Exact order statistics of magnitudes in constant memory, from two rounds of histograms.

Magnitudes are compared as float32, whose bits are ordered as the numbers are. The first round counts the upper half of
the bits, the second one the lower half within the bin in which the wanted magnitude lies.
"""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ROUNDS = 2
_UPPER, _LOWER = 1 << 15, 1 << 16  # the sign is never set, so 15 bits are left of the upper half
_GROUP = 1 << 8
PIECE = 1 << 16
"""Elements that are looked at a time, so that they stay in a core's cache."""

Ranks = Sequence[Sequence[int]]
"""The ranks that are wanted of each task vector, of which the largest magnitude has rank 1; none where none is."""


def rounds(ranks: Ranks) -> int:
    """How many rounds find the magnitudes of these ranks: none where none is wanted."""
    return ROUNDS if any(ranks) else 0


def count(tensors: Sequence["Tensor"], ranks: Ranks, number: int, measurements: Sequence["Tensor"]) -> "Tensor":
    """What round `number` counts in a block: int64, one histogram a task vector, then one a wanted rank."""
    import torch

    counted = []
    found = iter(_upper_halves(ranks, measurements[0]) if number else ())
    for tensor, wanted in zip(tensors, ranks, strict=True):
        if not wanted:
            continue
        flat = tensor.reshape(-1)
        pieces = [flat[start : start + PIECE] for start in range(0, len(flat), PIECE)]
        if number == 0:
            counted.append(torch.bincount(torch.cat([_bits(piece) >> 16 for piece in pieces]), minlength=_UPPER))
            continue
        bins = [next(found)[0] for _ in wanted]
        inside: list[list[Tensor]] = [[] for _ in bins]
        for piece in pieces:
            bits = _bits(piece)
            for place, chosen in zip(bins, inside, strict=True):
                chosen.append(_within(bits, place))
        counted += [torch.bincount(torch.cat(chosen), minlength=_LOWER) for chosen in inside]
    return torch.stack(counted)


def find(ranks: Ranks, measurements: Sequence["Tensor"]) -> list[list[int]]:
    """The magnitudes of the wanted ranks, as the bits of float32, from the sums of both rounds."""
    if not any(ranks):
        return [[] for _ in ranks]
    upper = _upper_halves(ranks, measurements[0])
    lower = (_bin(counts, rank)[0] for counts, (_, rank) in zip(measurements[1], upper, strict=True))
    bits = (high << 16 | low for (high, _), low in zip(upper, lower, strict=True))
    return [[next(bits) for _ in wanted] for wanted in ranks]


def keep(tensor: "Tensor", least: int | None, most: int | None = None) -> "Tensor":
    """The task vector with zeros where its magnitude is below `least` or above `most`, in memory of its own.

    least, most: bits of float32, to which magnitudes are rounded before they are compared; None for no bound.
    """
    import torch

    kept = torch.hardshrink(tensor, _just_below(least, tensor.dtype)) if least else tensor
    if most is None:
        return kept.clone() if kept is tensor else kept
    over = _smallest(most + 1, tensor.dtype)
    inside: Tensor = torch.ops.aten.hardtanh_backward(kept, tensor, -over, over)  # zero where it is not between these
    return inside


def _bits(tensor: "Tensor") -> "Tensor":
    """Magnitudes as the bits of float32."""
    import torch

    return tensor.float().view(torch.int32) & 0x7FFFFFFF


def _within(bits: "Tensor", upper: int) -> "Tensor":
    """The lower halves of those whose upper half is this; numpy is several times as fast where few are chosen."""
    import torch

    inside = (bits ^ (upper << 16)) < _LOWER  # the numbers are not negative, so neither is this
    if bits.device.type != "cpu":
        return bits[inside] & (_LOWER - 1)
    return torch.from_numpy(bits.numpy()[inside.numpy()] & (_LOWER - 1))


def _upper_halves(ranks: Ranks, counts: "Tensor") -> list[tuple[int, int]]:
    """For each wanted rank, the bin of the first round that it lies in, and its rank in there."""
    rows = iter(counts)
    return list(chain.from_iterable([_bin(row, rank) for row in [next(rows)] for rank in w] for w in ranks if w))


def _bin(counts: "Tensor", rank: int) -> tuple[int, int]:
    """The bin that holds the element of this rank, and its rank in there."""
    groups = counts.view(-1, _GROUP)
    group, rank = _place(groups.sum(1), rank)
    inside, rank = _place(groups[group], rank)
    return group * _GROUP + inside, rank


def _place(counts: "Tensor", rank: int) -> tuple[int, int]:
    import torch

    above = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(above, rank))
    return len(counts) - 1 - place, rank - (int(above[place - 1]) if place else 0)


def _just_below(bits: int, dtype: "torch.dtype") -> float:
    """The largest number of a dtype that rounds to less than a float32 that is not zero, given as its bits."""
    import torch

    below = _float(bits - 1)
    if dtype == torch.float32:
        return below
    middle = (below + _float(bits)) / 2  # exact; it rounds to the one of both whose last bit is zero
    return math.nextafter(middle, 0.0) if bits % 2 == 0 else middle


def _smallest(bits: int, dtype: "torch.dtype") -> float:
    """The smallest number of a dtype that rounds to a float32 that is not zero, given as its bits."""
    import torch

    return _float(bits) if dtype == torch.float32 else math.nextafter(_just_below(bits, dtype), math.inf)


def _float(bits: int) -> float:
    number: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return number
