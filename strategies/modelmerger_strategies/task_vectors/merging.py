"""Sums of task vectors, and means of those that agree with the elected sign."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelmerger_strategies.task_vectors.family import Slice
from modelmerger_strategies.task_vectors.total import total

if TYPE_CHECKING:
    from torch import Tensor


def added_up(given: Slice, kept: Sequence["Tensor"]) -> "Tensor":
    """Σ wᵢτ̂ᵢ, a new tensor, divided by Σ|wᵢ| with `normalize_weights`: what is subtracted stays subtracted."""
    divisor = sum(map(abs, given.weights)) if given.options.normalize_weights else 1.0
    return total(kept, [weight / divisor for weight in given.weights])


def elected(given: Slice, kept: Sequence["Tensor"]) -> "Tensor":
    """Σ wᵢτ̂ᵢ, in each element over the models whose wᵢτ̂ᵢ has the sign of the sum over all models: a new tensor.

    It is divided by Σ|wᵢ| over the same models with `normalize_weights`. Where the sum over all models is zero, so is
    the result.
    """
    weights, normalize = given.weights, given.options.normalize_weights
    signs = total(kept, weights).sign_()
    summed, divisor = signs.new_zeros(signs.shape), signs.new_zeros(signs.shape)
    for tensor, weight in zip(kept, weights, strict=True):
        agreeing = tensor * signs
        if weight != 1:
            agreeing.mul_(weight)
        agreeing.clamp_(min=0)
        summed.add_(agreeing)
        if normalize:
            divisor.add_(agreeing.sign_(), alpha=abs(weight))
    if normalize:
        summed.div_(divisor.clamp_(min=min(map(abs, weights))))
    return summed.mul_(signs)
