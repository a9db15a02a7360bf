"""Gradient descent on the numbers: Adam, within the bounds of each number (Kingma and Ba 2015, arXiv:1412.6980)."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

Vector = "np.ndarray"
Slopes = Callable[["np.ndarray"], "np.ndarray"]
_MEAN, _SQUARE, _TINY = 0.9, 0.99, 1e-12


def descend(
    start: Sequence[float], bounds: Sequence[tuple[float, float]], steps: int, rate: float, slopes: Slopes
) -> Iterator["np.ndarray"]:
    """The vectors of a descent: `steps` of them behind the start, each asked of `slopes` when the next one is wanted.

    rate: of the first step, as a share of the range of a number; it falls to a tenth of that along half a cosine.
    slopes: the derivatives of what is made small, at a vector.
    """
    low, high = np.array(bounds, dtype=float).reshape(-1, 2).T
    span = high - low
    vector = np.array(start, dtype=float)
    mean, square = np.zeros_like(vector), np.zeros_like(vector)
    for step in range(1, steps + 1):
        slope = slopes(vector) * span
        mean = _MEAN * mean + (1 - _MEAN) * slope
        square = _SQUARE * square + (1 - _SQUARE) * slope**2
        towards = (mean / (1 - _MEAN**step)) / (np.sqrt(square / (1 - _SQUARE**step)) + _TINY)
        now = rate * (0.1 + 0.9 * (1 + np.cos(np.pi * (step - 1) / steps)) / 2)
        vector = np.clip(vector - now * span * towards, low, high)
        yield vector
