"""Brackets around the magnitudes of wanted ranks: found in a sample, then counted once in the whole tensor.

A statistic of a part says how many magnitudes lie above each bracket and holds those within, each with how often it
comes. That of all elements shrinks to what is to be found, which is all that is kept of a round.
"""

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

RUN, RUNS = 1 << 10, 1 << 6
"""Elements of the sample that stand together, and how many such runs there are."""
LARGE, MORE_RUNS = 1 << 24, 1 << 8
"""From so many elements on, a tensor has this many runs, so that less lies within its brackets."""
DEVIATIONS = 4.0
"""Half of a bracket's width, in standard deviations of a rank in a sample of independent elements. Those of a run are
not independent in every tensor, so that it must not be too small; but a bracket that misses costs time alone."""
LEAST = 64
"""Ranks of the sample that a bracket has on either side at least, for the largest and the smallest magnitudes."""
MOST = 1 << 22
"""Different magnitudes that are held of a tensor at most. Where more lie within brackets, they are not used."""
TOP = (1 << 31) - 1
"""More than the bits of any magnitude."""
PIECE = 1 << 17
"""Elements that are looked at at a time: with fewer, threads wait for the interpreter more than for memory."""
UNKNOWN = -1
"""In place of a magnitude that lies outside of its bracket."""
_COUNTS = (1 << 32) - 1

Bracket = tuple[int, int]
"""The smallest and the largest magnitude of a bracket, as the bits of float32."""
EVERYTHING: Bracket = (0, TOP)
Row = tuple[int, np.ndarray | None]
"""Of a bracket: how many magnitudes lie above it, and those within; None where they are not held."""


def is_sample(elements: int) -> bool:
    """Whether a tensor is hardly larger than its sample would be, so that all of it is."""
    return elements <= 2 * RUN * RUNS


def sample_of(elements: int) -> list[tuple[int, int]] | None:
    """Ranges of the sample: evenly spaced. None for all of a tensor."""
    if is_sample(elements):
        return None
    runs = _runs(elements)
    starts = (number * (elements - RUN) // (runs - 1) for number in range(runs))
    return [(start, start + RUN) for start in starts]


def sampled(elements: int) -> int:
    """How many elements the sample has."""
    return elements if is_sample(elements) else RUN * _runs(elements)


def part(tensors: Sequence["Tensor"], ranks: Sequence[Sequence[int]], brackets: Sequence[Bracket]) -> "Tensor":
    """The statistic of a part: int64. brackets: one a wanted rank. Ranks of one task vector may share a bracket."""
    rows = []
    remaining = iter(brackets)
    for tensor, wanted in zip(tensors, ranks, strict=True):
        mine = [next(remaining) for _ in wanted]
        if mine:
            rows += _counted(tensor, mine)
    return _packed(tensors[0].numel(), rows)


def joined(parts: Sequence["Tensor"], most: int | None = None) -> "Tensor":
    """The statistic of several parts. most: different magnitudes that are held, as `MOST`; None for all."""
    unpacked = [_unpacked(one) for one in parts]
    rows: list[Row] = []
    for row in zip(*(held for _, held in unpacked), strict=True):
        held = [values for _, values in row if values is not None]
        rows.append((sum(above for above, _ in row), _summed(held) if len(held) == len(row) else None))
    if sum(len(values) for _, values in rows if values is not None) > (math.inf if most is None else most):
        rows = [(above, None) for above, _ in rows]
    return _packed(sum(elements for elements, _ in unpacked), rows)


def covered(statistic: "Tensor") -> int:
    """How many elements it is of."""
    return int(statistic[0])


def at_ranks(statistic: "Tensor", ranks: Sequence[int]) -> list[int]:
    """The magnitudes of ranks, as the bits of float32, or `UNKNOWN`. ranks: one a bracket; the largest has rank 1."""
    _, rows = _unpacked(statistic)
    return [_at(above, values, rank) for (above, values), rank in zip(rows, ranks, strict=True)]


def around(statistic: "Tensor", ranks: Sequence[int], elements: int) -> list[Bracket]:
    """Brackets around the magnitudes of ranks among all elements. statistic: of a sample, of everything in it."""
    count, rows = _unpacked(statistic)
    found = []
    for (above, values), rank in zip(rows, ranks, strict=True):
        share = rank / elements
        middle, half = share * count, max(LEAST, DEVIATIONS * math.sqrt(count * share * (1 - share)))
        first, last = math.floor(middle - half), math.ceil(middle + half)
        high = TOP if first < 1 else _at(above, values, first)
        low = 0 if last > count else _at(above, values, last)
        found.append((low, high))
    return found


def _runs(elements: int) -> int:
    return RUNS if elements < LARGE else MORE_RUNS


def _counted(tensor: "Tensor", brackets: Sequence[Bracket]) -> list[Row]:
    """The rows of a task vector, one a bracket."""
    bits = tensor.reshape(-1).float().view(torch.int32)
    split = _split_here if bits.device.type == "cpu" else _split
    rows = {bracket: (above, _distinct(within)) for bracket, (above, within) in split(bits, set(brackets)).items()}
    return [rows[bracket] for bracket in brackets]


def _split(bits: "Tensor", brackets: Collection[Bracket]) -> dict[Bracket, tuple[int, np.ndarray]]:
    """For each bracket, how many magnitudes are above it, and those within. bits: of float32, with the sign."""
    found = {}
    magnitudes = bits & TOP
    for low, high in brackets:
        within = magnitudes[(magnitudes >= low) & (magnitudes <= high)]
        found[low, high] = int((magnitudes > high).sum()), within.cpu().numpy()
    return found


def _split_here(bits: "Tensor", brackets: Collection[Bracket]) -> dict[Bracket, tuple[int, np.ndarray]]:
    """The same, by numpy in memory that is used again: several times as fast where few are within."""
    numbers = bits.numpy()
    magnitudes = np.empty(min(PIECE, len(numbers)), np.int32)
    masks = np.empty((2, len(magnitudes)), np.bool_)
    above = dict.fromkeys(brackets, 0)
    inside: dict[Bracket, list[np.ndarray]] = {bracket: [] for bracket in brackets}
    for start in range(0, len(numbers), PIECE):
        count = min(PIECE, len(numbers) - start)
        own, (over, within) = magnitudes[:count], masks[:, :count]
        np.bitwise_and(numbers[start : start + count], np.int32(TOP), out=own)
        for low, high in brackets:
            np.greater(own, np.int32(high), out=over)
            above[low, high] += int(np.count_nonzero(over))
            np.greater_equal(own, np.int32(low), out=within)
            np.not_equal(over, within, out=within)  # what is above is not below
            inside[low, high].append(own.take(within.nonzero()[0]))  # sooner done than `own[within]` where many are
    return {bracket: (above[bracket], np.concatenate(inside[bracket])) for bracket in brackets}


def _distinct(values: np.ndarray) -> np.ndarray:
    """Each magnitude once, in order: its bits, and in the lower half how often it comes. values: sorted in place."""
    values.sort()
    starts = np.ones(len(values) + 1, np.bool_)  # where another magnitude begins, and the end
    np.not_equal(values[1:], values[:-1], out=starts[1:-1])
    firsts = np.flatnonzero(starts)
    packed: np.ndarray = values[firsts[:-1]].astype(np.int64)
    packed <<= 32
    packed |= firsts[1:] - firsts[:-1]
    return packed


def _summed(held: Sequence[np.ndarray]) -> np.ndarray | None:
    """The magnitudes of several parts, each once; None where one comes so often that there is no room for that."""
    values = np.sort(np.concatenate(held))
    if not len(values):
        return values
    magnitudes = values >> 32
    firsts = np.flatnonzero(np.diff(magnitudes, prepend=-1))
    counts = np.add.reduceat(values & _COUNTS, firsts)
    summed: np.ndarray = magnitudes[firsts] << 32 | counts
    return summed if counts.max() <= _COUNTS else None


def _at(above: int, values: np.ndarray | None, rank: int) -> int:
    if values is None:
        return UNKNOWN
    counts = above + np.cumsum((values & _COUNTS)[::-1])
    if rank <= above or not len(values) or rank > counts[-1]:
        return UNKNOWN
    return int(values[::-1][np.searchsorted(counts, rank)] >> 32)


def _packed(elements: int, rows: Sequence[Row]) -> "Tensor":
    head = [
        elements,
        len(rows),
        *(number for above, held in rows for number in (above, -1 if held is None else len(held))),
    ]
    return torch.from_numpy(np.concatenate([np.array(head, np.int64), *(held for _, held in rows if held is not None)]))


def _unpacked(statistic: "Tensor") -> tuple[int, list[Row]]:
    numbers = statistic.cpu().numpy()
    elements, count = map(int, numbers[:2])
    place, rows = 2 + 2 * count, []
    for above, length in numbers[2:place].reshape(count, 2).tolist():
        rows.append((above, None if length < 0 else numbers[place : place + length]))
        place += max(0, length)
    return elements, rows
