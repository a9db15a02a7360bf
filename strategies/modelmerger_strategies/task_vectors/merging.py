"""Sums of task vectors, and means of those that agree with the elected sign."""

import functools
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

    weighted = [tensor if weight == 1 else tensor * weight for tensor, weight in zip(kept, given.weights, strict=True)]
    signs = functools.reduce(torch.add, weighted).sign()  # products were rounded first, so that opposite ones cancel
    agreeing, divisor = torch.empty_like(out), None
    for number, (own, weight) in enumerate(zip(weighted, map(abs, given.weights), strict=True)):
        torch.mul(own, signs, out=agreeing).gt_(0)  # 1 or 0
        if number:
            out.addcmul_(own, agreeing)
        else:
            torch.mul(own, agreeing, out=out)
        if given.options.normalize_weights:
            divisor = agreeing * weight if divisor is None else divisor.add_(agreeing, alpha=weight)
    if divisor is not None:
        out.div_(divisor.clamp_(min=min(map(abs, given.weights))))
