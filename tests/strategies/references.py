"""The strategies' formulas as the documentation writes them, in numpy, and the bound that merged tensors are held to."""

from collections.abc import Sequence

import numpy as np
import torch

Array = np.ndarray


def weighted(tensors: Sequence[Array], weights: Sequence[float], normalize: bool = True, decay: float = 0.0) -> Array:
    total = sum(w * t for w, t in zip(weights, tensors, strict=True))
    if normalize:
        total = total / sum(weights)
    return total * (1 - decay) if total.ndim >= 2 else total


def sequential(tensors: Sequence[Array], weights: Sequence[float]) -> Array:
    merged = tensors[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        merged = (1 - weight) * merged + weight * tensor
    return merged


def task_arithmetic(
    tensors: Sequence[Array], base: Array, weights: Sequence[float], subtracted: Sequence[bool], scaling: float = 1.0
) -> Array:
    total = np.zeros_like(base)
    for tensor, weight, minus in zip(tensors, weights, subtracted, strict=True):
        total = total + (-abs(weight) if minus else weight) * (tensor - base)
    return base + scaling * total


def slerp(first: Array, second: Array, t: float, normalize: bool = True) -> Array:
    """Through the angle 2·atan2(‖u₁ − u₂‖, ‖u₁ + u₂‖), which is accurate near 0 and near π where an arc cosine is not."""
    if first.size == 1:
        return (1 - t) * first + t * second
    norms = np.sqrt((first * first).sum()), np.sqrt((second * second).sum())
    units = first / norms[0], second / norms[1]
    apart, together = units[0] - units[1], units[0] + units[1]
    angle = 2 * np.arctan2(np.sqrt((apart * apart).sum()), np.sqrt((together * together).sum()))
    arcs = (1 - t, t) if angle == 0 else (np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle))
    if not normalize:
        return arcs[0] * first + arcs[1] * second
    return ((1 - t) * norms[0] + t * norms[1]) * (arcs[0] * units[0] + arcs[1] * units[1])


def half_ulp(values: Array, dtype: torch.dtype) -> Array:
    """Half a unit in the last place of a dtype at real numbers; below the normal numbers, half the smallest subnormal."""
    info = torch.finfo(dtype)
    lowest = np.log2(info.smallest_normal).astype(int)
    binade = np.where(values == 0, lowest, np.maximum(np.frexp(values)[1] - 1, lowest))
    return np.ldexp(info.eps / 2, binade)


def assert_rounded_once(merged: torch.Tensor, exact: Array, magnitude: Array, terms: int) -> None:
    """Every element is within half a unit in the last place × (1 + 2⁻¹⁰) of the exact result, cancellation aside.

    magnitude: Σ|cᵢ·θᵢ|. What cancels of it, magnitude − |exact|, may count with one rounding of the arithmetic for each
    coefficient, product and sum: (terms + 1)·2⁻²⁴, or 2⁻⁵³ where float32 is written and the arithmetic so is float64.
    Without cancellation, nothing is added to the bound.
    """
    unit = 2.0**-53 if merged.dtype == torch.float32 else 2.0**-24
    cancelled = np.maximum(magnitude - np.abs(exact), 0)
    bound = half_ulp(exact, merged.dtype) * (1 + 2.0**-10) + (terms + 1) * unit * cancelled
    error = np.abs(merged.to(torch.float64).numpy() - exact)
    worst = np.argmax(error / bound)
    assert (error <= bound).all(), f"error {error.flat[worst]:g} where {bound.flat[worst]:g} is allowed"
