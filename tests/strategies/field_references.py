"""The formulas of model_stock, karcher, sce and their like as the documentation writes them, in numpy and float64.

They work on whole tensors, while the strategies work on inner products and histograms.
"""

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def norm(tensor: Array) -> float:
    return float(np.sqrt((tensor * tensor).sum()))


def model_stock(updates: Sequence[Array]) -> Array:
    count = len(updates)
    norms = [norm(update) or 1.0 for update in updates]
    cosines = [(updates[i] * updates[j]).sum() / (norms[i] * norms[j]) for i in range(count) for j in range(i)]
    c = max(0.0, float(np.mean(cosines)))
    return count * c / (1 + (count - 1) * c) * np.mean(updates, axis=0)


def nuslerp(updates: Sequence[Array], t: float) -> Array:
    first, second = updates
    if first.size == 1:
        return (1 - t) * first + t * second
    units = first / norm(first), second / norm(second)
    angle = 2 * np.arctan2(norm(units[0] - units[1]), norm(units[0] + units[1]))
    return (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)


def multislerp(updates: Sequence[Array], weights: Sequence[float], normalize: bool = True) -> Array:
    shares = np.array(weights) / (sum(weights) if normalize else 1)
    if updates[0].size == 1:
        return sum(share * update for share, update in zip(shares, updates, strict=True))
    mean = sum(share * update / norm(update) for share, update in zip(shares, updates, strict=True))
    return sum(share * norm(update) for share, update in zip(shares, updates, strict=True)) * mean / norm(mean)


def karcher(tensors: Sequence[Array], weights: Sequence[float]) -> Array:
    """By gradient steps on the sphere itself, until nothing changes."""
    shares = np.array(weights) / sum(weights)
    if tensors[0].size == 1:
        return sum(share * tensor for share, tensor in zip(shares, tensors, strict=True))
    units = [tensor / norm(tensor) for tensor in tensors]
    point = sum(share * unit for share, unit in zip(shares, units, strict=True))
    point = point / norm(point)
    for _ in range(60):
        step = np.zeros_like(point)
        for share, unit in zip(shares, units, strict=True):
            tangent = unit - (unit * point).sum() * point
            angle = 2 * np.arctan2(norm(unit - point), norm(unit + point))
            if norm(tangent) > 0:
                step += share * angle * tangent / norm(tangent)
        point = np.cos(norm(step)) * point + np.sinc(norm(step) / np.pi) * step
        point = point / norm(point)
    return sum(share * norm(tensor) for share, tensor in zip(shares, tensors, strict=True)) * point


def sum_of_distances(point: Array, tensors: Sequence[Array], weights: Sequence[float]) -> float:
    return sum(weight * norm(point - tensor) for weight, tensor in zip(weights, tensors, strict=True))


def geometric_median(tensors: Sequence[Array], weights: Sequence[float]) -> Array:
    """By Newton-like descent on a smoothed sum, whose smoothing goes to 0."""
    point = np.average(tensors, axis=0, weights=weights)
    for smoothing in 10.0 ** -np.arange(2, 13):
        for _ in range(2000):
            pulls = np.array(
                [w / np.sqrt(norm(point - t) ** 2 + smoothing**2) for w, t in zip(weights, tensors, strict=True)]
            )
            before, point = point, np.average(tensors, axis=0, weights=pulls)
            if norm(point - before) < 1e-14:
                break
    return point


def arcee_fusion(tensor: Array, base: Array) -> Array:
    def softmax(rows: Array) -> Array:
        powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True) + 1e-8

    rows, others = (array.reshape(-1, array.shape[-1] if array.ndim else 1) for array in (tensor, base))
    p, q = softmax(rows), softmax(others)
    divergence = np.maximum(0, (p * np.log(p / q)).sum(axis=-1, keepdims=True))
    scores = (abs(rows - others) * divergence).astype(np.float32)
    order = np.sort(scores, axis=None).astype(np.float64)
    first, median, third = (order[k * (order.size - 1) // 4] for k in (1, 2, 3))
    return np.where(scores >= median + 1.5 * (third - first), rows, others).reshape(tensor.shape)


def sce(updates: Sequence[Array], density: float = 1.0) -> Array:
    stacked = np.stack(updates)
    if density < 1:
        variances = stacked.var(axis=0)
        kept = int(round(np.count_nonzero(variances) * density, 6))
        least = np.sort(variances, axis=None)[variances.size - kept] if kept else np.inf
        stacked = stacked * (variances >= least)
    energies = (stacked**2).reshape(len(stacked), -1).sum(axis=1)
    if not energies.sum():
        return np.zeros_like(updates[0])
    shares = (energies / energies.sum()).reshape(-1, *[1] * updates[0].ndim)
    elected = np.sign(stacked) == np.where(stacked.sum(axis=0) >= 0, 1, -1)
    total = (shares * elected).sum(axis=0)
    return np.divide((shares * elected * stacked).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)


def ram(updates: Sequence[Array], epsilon: float = 1e-5, r: float = 0.0, alpha: float = 0.0) -> Array:
    """RAM+ with r above 0."""
    changed = np.abs(np.stack(updates)) > epsilon
    count = changed.sum(axis=0)
    merged = np.zeros_like(updates[0])
    for update, own in zip(updates, changed, strict=True):
        shared, alone = (own & (count > 1)).sum(), (own & (count == 1)).sum()
        factor = 1 + r * min(shared / max(alone, 1), alpha)
        merged += np.where(own & (count > 1), update / np.maximum(count, 1), np.where(own, factor * update, 0))
    return merged
