"""Sums of task vectors, and means of those that agree with the elected sign."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Merge = Callable[[Sequence["Tensor"], Sequence[float], bool], "Tensor"]
"""Merges task vectors with weights: a new tensor. The flag says whether it averages them."""


def total(tensors: Sequence["Tensor"], weights: Sequence[float]) -> "Tensor":
    """Σ wᵢτᵢ, a new tensor."""
    summed = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        summed.add_(tensor, alpha=weight)
    return summed


def plain_total(tensors: Sequence["Tensor"], weights: Sequence[float], normalize: bool) -> "Tensor":
    """Σ wᵢτᵢ, a new tensor, divided by Σ|wᵢ| if wanted: what is subtracted stays subtracted."""
    divisor = sum(map(abs, weights)) if normalize else 1.0
    return total(tensors, [weight / divisor for weight in weights])


def elected_total(tensors: Sequence["Tensor"], weights: Sequence[float], normalize: bool) -> "Tensor":
    """Σ wᵢτᵢ, in each element over the models whose wᵢτᵢ has the sign of the sum over all models: a new tensor.

    normalize: divides by Σ|wᵢ| over the same models. Where the sum over all models is zero, so is the result.
    """
    signs = total(tensors, weights).sign_()
    summed, divisor = signs.new_zeros(signs.shape), signs.new_zeros(signs.shape)
    for tensor, weight in zip(tensors, weights, strict=True):
        agreeing = (tensor * signs).mul_(weight).clamp_(min=0)
        summed.add_(agreeing)
        if normalize:
            divisor.add_(agreeing.sign_(), alpha=abs(weight))
    if normalize:
        summed.div_(divisor.clamp_(min=min(map(abs, weights))))
    return summed.mul_(signs)
