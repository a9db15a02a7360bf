"""Where vectors are measured: here, one after the other, or in several processes at a time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from attrs import frozen

Losses = Mapping[str, float]
"""Split → nats a token; of another metric, its name → its value."""
Drop = Callable[[int, Losses], bool]
"""The number of a part of the lines, and the losses on the lines up to its end → whether these are enough."""
Vector = Sequence[float]


@frozen
class Measured:
    """What a vector came to."""

    losses: Losses
    """On all lines; of one that was dropped, on those that were measured."""
    parts: Sequence[Losses]
    """On the lines up to the end of each part but the last; none where lines are not measured in parts."""
    dropped: bool
    """Whether some of the lines were enough."""
    seconds: float
    """What it took."""


Measure = Callable[[Vector, Drop], Measured]
"""Measures a vector, and asks after each part of the lines but the last whether it is to be dropped."""


class Bench(Protocol):
    """Measures vectors."""

    def measure(self, asked: Sequence[tuple[Vector, Drop]]) -> Iterator[Measured]:
        """What each of them comes to, in their order, as soon as it and those before it are there."""


@frozen
class Here:
    """In the process that searches, one vector after the other."""

    _measure: Measure

    def measure(self, asked: Sequence[tuple[Vector, Drop]]) -> Iterator[Measured]:
        """What each of them comes to."""
        return (self._measure(vector, drop) for vector, drop in asked)


def timed(losses: Callable[[Vector], Losses]) -> Measure:
    """Measures all lines at once."""

    def measure(vector: Vector, _: Drop) -> Measured:
        started = time.monotonic()
        found = losses(vector)
        return Measured(found, (), dropped=False, seconds=time.monotonic() - started)

    return measure
