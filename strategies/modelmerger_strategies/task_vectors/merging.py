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
    signs = total(kept, given.weights).sign_()
    summed, divisor = None, None
    for tensor, weight in zip(kept, given.weights, strict=True):
        weighted = tensor if weight == 1 else tensor * weight
        agreeing = (weighted * signs).gt_(0)  # 1 or 0
        summed = weighted * agreeing if summed is None else summed.addcmul_(weighted, agreeing)
        if given.options.normalize_weights:
            divisor = agreeing.mul_(abs(weight)) if divisor is None else divisor.add_(agreeing, alpha=abs(weight))
    assert summed is not None  # there is at least one model
    return summed if divisor is None else summed.div_(divisor.clamp_(min=min(map(abs, given.weights))))
