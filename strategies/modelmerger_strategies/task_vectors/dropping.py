"""Dropping elements of task vectors at random, and making up for what was dropped."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Rescale = Literal["l1"] | bool
"""How the kept elements make up for the dropped ones: true, by the probability that they are kept, so that the result
is right in the mean; l1, so that the sum of magnitudes of each tensor is as before; false, not at all."""
Random = Callable[[int], "Tensor"]
"""Random numbers for the elements, given the index of a model."""


def drop_evenly(tensor: "Tensor", density: float, numbers: Callable[[], "Tensor"], *, divide: bool) -> "Tensor":
    """The task vector with each element kept with probability `density`, and zero otherwise: a new tensor, or itself.

    numbers: uniform random numbers, one an element. divide: whether what is kept is divided by the probability.
    """
    if density >= 1:
        return tensor
    kept = _mask(density, numbers(), tensor.dtype).mul_(tensor)
    return kept.div_(density) if divide else kept


def drop_by_rank(
    tensor: "Tensor", density: float, epsilon: float, numbers: Callable[[], "Tensor"], *, divide: bool
) -> "Tensor":
    """As `drop_evenly` for rows of a matrix, with the more probability the larger an element is within its row.

    The probabilities of a row are evenly spaced from density − epsilon to density + epsilon; of elements of one
    magnitude, later ones have the larger probability.
    """
    import torch

    if density >= 1:
        return tensor
    columns = tensor.shape[1]
    if columns == 1:
        return drop_evenly(tensor, density, numbers, divide=divide)
    order = torch.arange(columns, device=tensor.device)
    steps = order.to(tensor.dtype).mul_(2 * epsilon / (columns - 1)).add_(density - epsilon)
    bits = tensor.float().view(torch.int32) & 0x7FFFFFFF
    ranked = _sorted(bits.long().bitwise_left_shift_(32).bitwise_or_(order)).bitwise_and_(0xFFFFFFFF)
    probabilities = torch.empty_like(tensor).scatter_(1, ranked, steps.expand_as(tensor))
    kept = _mask(probabilities, numbers(), tensor.dtype).mul_(tensor)
    return kept.div_(probabilities) if divide else kept


def measure_sums(tensors: Sequence["Tensor"], kept: Sequence["Tensor"]) -> "Tensor":
    """The sums of magnitudes of a block, float64: before and after dropping, in two rows, one column a model."""
    import torch

    return torch.stack([torch.stack([_sum(tensor) for tensor in told]) for told in (tensors, kept)])


def factors(rescale: Rescale, measurements: Sequence["Tensor"], models: int) -> list[float]:
    """What the kept elements of each model are multiplied by. measurements: those of `measure_sums` come first."""
    if rescale != "l1":
        return [1.0] * models
    before, after = measurements[0].tolist()
    return [whole / left if left else 1.0 for whole, left in zip(before, after, strict=True)]


def _mask(probabilities: "Tensor | float", numbers: "Tensor", dtype: "torch.dtype") -> "Tensor":
    """1 where the number is less than the probability, else 0. Several times as fast as by way of booleans."""
    return (probabilities - numbers).sign_().clamp_(min=0).to(dtype)


def _sorted(keys: "Tensor") -> "Tensor":
    """Each row sorted; numpy's sort uses the vector instructions of the CPU."""
    if keys.device.type != "cpu":
        return keys.sort(dim=1).values
    keys.numpy().sort(axis=1)
    return keys


def _sum(tensor: "Tensor") -> "Tensor":
    import torch

    norm: Tensor = torch.linalg.vector_norm(tensor, ord=1, dtype=torch.float64)
    return norm
