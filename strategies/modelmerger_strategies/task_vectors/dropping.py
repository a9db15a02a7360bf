"""Dropping elements of task vectors at random, and making up for what was dropped."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from modelmerger_strategies.task_vectors.family import Slice

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 16
"""Elements whose magnitudes are added up at a time."""
Rescale = Literal["l1"] | bool
"""How the kept elements make up for the dropped ones: true, by the probability that they are kept, so that the result
is right in the mean; l1, so that the sum of magnitudes of each tensor is as before; false, not at all."""


def drop_evenly(given: Slice) -> list["Tensor"]:
    """The task vectors with each element kept with probability `density`, and zero otherwise: new ones, or the same.

    With `rescale: true`, what is kept is divided by the probability.
    """
    return [_evenly(given, *each) for each in zip(given.tensors, given.inputs, given.each("density"), strict=True)]


def drop_by_rank(given: Slice) -> list["Tensor"]:
    """As `drop_evenly` for rows of a matrix, with the more probability the larger an element is within its row.

    The probabilities of a row are evenly spaced from density − epsilon to density + epsilon; of elements of one
    magnitude, later ones have the larger probability.
    """
    numbers = given.each("density"), given.each("epsilon")
    return [_by_rank(given, *each) for each in zip(given.tensors, given.inputs, *numbers, strict=True)]


def _evenly(given: Slice, tensor: "Tensor", model: int, density: float) -> "Tensor":
    if density >= 1:
        return tensor
    kept = given.random(model, below=density).to(tensor.dtype).mul_(tensor)
    return kept.div_(density) if given.options.rescale is True else kept


def _by_rank(given: Slice, tensor: "Tensor", model: int, density: float, epsilon: float) -> "Tensor":
    import torch

    columns = tensor.shape[1]
    if density >= 1 or columns == 1:
        return _evenly(given, tensor, model, density)
    order = torch.arange(columns, device=tensor.device)
    steps = order.to(tensor.dtype).mul_(2 * epsilon / (columns - 1)).add_(density - epsilon)
    bits = tensor.float().view(torch.int32) & 0x7FFFFFFF
    ranked = _sorted(bits.long().bitwise_left_shift_(32).bitwise_or_(order)).bitwise_and_(0xFFFFFFFF)
    probabilities = torch.empty_like(tensor).scatter_(1, ranked, steps.expand_as(tensor))
    kept = given.random(model).lt_(probabilities).to(tensor.dtype).mul_(tensor)
    return kept.div_(probabilities) if given.options.rescale is True else kept


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


def _sorted(keys: "Tensor") -> "Tensor":
    """Each row sorted; numpy's sort uses the vector instructions of the CPU."""
    if keys.device.type != "cpu":
        return keys.sort(dim=1).values
    keys.numpy().sort(axis=1)
    return keys


def _sum(tensor: "Tensor") -> "Tensor":
    """Of magnitudes, in float64. Others are widened in pieces, which stay in a core's cache."""
    import torch

    if tensor.dtype == torch.float64:
        return tensor.abs().sum()
    flat = tensor.reshape(-1)
    pieces = [flat[start : start + PIECE] for start in range(0, max(1, len(flat)), PIECE)]
    magnitudes, wide = tensor.new_empty(len(pieces[0])), tensor.new_empty(len(pieces[0]), dtype=torch.float64)
    sums = []
    for piece in pieces:
        own = torch.abs(piece, out=magnitudes[: len(piece)])
        sums.append(wide[: len(piece)].copy_(own).sum())
    return torch.stack(sums).sum()
