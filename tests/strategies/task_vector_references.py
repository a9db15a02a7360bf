"""Strategies on task vectors as their papers write them: float64 numpy, by sorting, one array at a time."""

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
SHARE = 0.4


def as_float32(tau: Array) -> Array:
    """Magnitudes as they are compared."""
    return np.abs(tau.astype(np.float32))


def middle(tau: Array, density: float, gamma: float = 0.0) -> Array:
    """Without the largest gamma·n magnitudes, the next density·n: all as large as a threshold are kept."""
    if density == 1:
        return tau
    magnitudes = as_float32(tau)
    ordered = np.sort(magnitudes, axis=None)[::-1]
    kept = max(1, int(density * tau.size))
    outliers = min(int(gamma * tau.size), tau.size - kept)
    inside = (magnitudes >= ordered[outliers + kept - 1]) & (magnitudes <= ordered[outliers])
    return np.where(inside, tau, 0.0)


def added(kept: Sequence[Array], weights: Sequence[float], normalize: bool) -> Array:
    total = sum(w * t for w, t in zip(weights, kept, strict=True))
    return total / sum(map(abs, weights)) if normalize else total


def elected(kept: Sequence[Array], weights: Sequence[float], normalize: bool) -> Array:
    parts = np.stack([w * t for w, t in zip(weights, kept, strict=True)])
    agreeing = (np.sign(parts) == np.sign(parts.sum(0))) & (parts != 0)
    total = np.where(agreeing, parts, 0).sum(0)
    sizes = np.abs(np.array(weights)).reshape(-1, *[1] * kept[0].ndim)
    share = np.where(agreeing, sizes, 0).sum(0)
    return total / np.where(share == 0, 1, share) if normalize else total


def keep_probabilities(tau: Array, density: float, epsilon: float) -> Array:
    """MagPrune's, by rank within the row; the first of equal magnitudes has the lowest rank."""
    rows = as_float32(tau).reshape(-1, tau.shape[-1] if tau.ndim else 1)
    width = rows.shape[1]
    made = np.empty(rows.shape)
    for row, values in zip(made, rows, strict=True):
        for rank, place in enumerate(np.argsort(values, kind="stable")):
            row[place] = density if width == 1 else density - epsilon + 2 * epsilon * rank / (width - 1)
    return np.where(density == 1, 1.0, made).reshape(tau.shape)


def dropped(tau: Array, probabilities: Array | float, numbers: Array, rescale: bool | str) -> Array:
    """numbers: the uniform random ones."""
    kept = np.where(numbers < probabilities, tau, 0.0)
    if rescale is True:
        return kept / probabilities
    if rescale == "l1" and np.abs(kept).sum() > 0:
        return kept * (np.abs(tau).sum() / np.abs(kept).sum())
    return kept


def consensus(taus: Sequence[Array], weights: Sequence[float], factor: float, agreeing: int) -> Array:
    parts = [w * t for w, t in zip(weights, taus, strict=True)]
    total = sum(parts)
    masks = sum((np.abs(part) >= factor * np.abs(total - part)).astype(int) for part in parts)
    return np.where(masks >= min(agreeing, len(parts)), total, 0.0)


def matched(merged: Array, taus: Sequence[Array], weights: Sequence[float]) -> Array:
    """As long as a share of the plain sum."""
    length = np.linalg.norm(merged)
    share = {1: 1.0, 2: 2 * SHARE, 3: SHARE * 4 / 3}.get(len(taus), SHARE)
    plain = np.linalg.norm(sum(w * t for w, t in zip(weights, taus, strict=True)))
    return merged * (share * plain / length) if length else merged
