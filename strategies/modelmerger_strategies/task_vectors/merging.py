"""Sums of task vectors, and means of those that agree with the elected sign."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelmerger_strategies.task_vectors.family import Slice
from modelmerger_strategies.task_vectors.total import total

if TYPE_CHECKING:
    from torch import Tensor


def added_up(given: Slice, kept: Sequence["Tensor"], out: "Tensor") -> None:
    """Σ wᵢτ̂ᵢ, divided by Σ|wᵢ| with `normalize_weights`: what is subtracted stays subtracted."""
    divisor = sum(map(abs, given.weights)) if given.options.normalize_weights else 1.0
    total(kept, [weight / divisor for weight in given.weights], out)


def elected(given: Slice, kept: Sequence["Tensor"], out: "Tensor") -> None:
    """Σ wᵢτ̂ᵢ, in each element over the models whose wᵢτ̂ᵢ has the sign of the sum over all models.

    It is divided by Σ|wᵢ| over the same models with `normalize_weights`. Where the sum over all models is zero, so is
    the result.
    """
    import torch

    first, *others = map(_times, kept, given.tensors, given.weights)
    share, *shares = map(abs, given.weights)
    signs = torch.add(first, others[0]) if others else first.clone()  # of rounded products: opposite ones cancel
    for own in others[1:]:
        signs.add_(own)
    agreeing, divisor = torch.mul(first, signs.sign_()).gt_(0), None  # 1 or 0; in place: new memory is in no cache
    torch.mul(first, agreeing, out=out)
    if given.options.normalize_weights:
        divisor, agreeing = agreeing.mul_(share), torch.empty_like(out)
    for own, weight in zip(others, shares, strict=True):
        torch.mul(own, signs, out=agreeing).gt_(0)
        out.addcmul_(own, agreeing)
        if divisor is not None:
            divisor.add_(agreeing, alpha=weight)
    if divisor is not None:
        out.div_(divisor.clamp_(min=min([share, *shares])))


def _times(kept: "Tensor", given: "Tensor", weight: float) -> "Tensor":
    """What is kept of a tensor that was given, weighted: in its own memory, unless it is that tensor."""
    if weight == 1:
        return kept
    return kept * weight if kept is given else kept.mul_(weight)
