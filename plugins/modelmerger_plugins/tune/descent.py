"""Gradient descent on numbers: Adam, within the bounds of each number (Kingma and Ba 2015, arXiv:1412.6980)."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

Slopes = Callable[[np.ndarray], np.ndarray]
_MEAN, _SQUARE, _TINY = 0.9, 0.99, 1e-12


def rates_of(first: float, steps: int) -> list[float]:
    """The length of each step as a share of the range of a number: it falls to a tenth along half a cosine."""
    return [first * (0.1 + 0.9 * (1 + np.cos(np.pi * step / steps)) / 2) for step in range(steps)]


def descend(
    start: Sequence[float] | np.ndarray, bounds: Sequence[tuple[float, float]], rates: Sequence[float], slopes: Slopes
) -> Iterator[np.ndarray]:
    """The vectors of a descent: one for each rate, behind the start, each asked of `slopes` when the next is wanted.

    slopes: the derivatives of what is made small, at a vector.
    """
    low, high = np.array(bounds, dtype=float).reshape(-1, 2).T
    span = high - low
    vector = np.array(start, dtype=float)
    mean, square = np.zeros_like(vector), np.zeros_like(vector)
    for step, rate in enumerate(rates, 1):
        slope = slopes(vector) * span
        mean = _MEAN * mean + (1 - _MEAN) * slope
        square = _SQUARE * square + (1 - _SQUARE) * slope**2
        towards = (mean / (1 - _MEAN**step)) / (np.sqrt(square / (1 - _SQUARE**step)) + _TINY)
        vector = np.clip(vector - rate * span * towards, low, high)
        yield vector
