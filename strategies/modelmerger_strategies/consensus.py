"""Consensus merging: the sum of all changes, but only where it stands for what enough of the models learned.

    mᵢ = 1 where |wᵢτᵢ| ≥ mask_factorᵢ·|Σ wⱼτⱼ − wᵢτᵢ|, else 0      (a TALL mask), τᵢ = θᵢ − θ_base
    merged = θ_base + λ·Σ wᵢτᵢ where Σ mᵢ ≥ agreeing_models, else θ_base

Wang et al. 2024, "Localizing task information for improved model merging and compression",
https://arxiv.org/abs/2405.07813, equations 4 and 6. With fewer models than `agreeing_models`, all of them must agree.

Use it for many models, to leave out elements that matter to one of them alone ("selfish") or to none. Do not use it
for two very different models: what only one of them learned is lost. With four or more equal models nothing is left,
since each is less than 0.4 of the others' sum.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen
from modelmerger import Check, Traits, must_be_between, varying

from modelmerger_strategies.task_vectors import family, trimmed
from modelmerger_strategies.task_vectors.total import total

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, None), inputs="updates")
_FACTOR = must_be_between(0, 10)
_COUNT = Check({"minimum": 1}, lambda count: None if count >= 1 else f"must be at least 1, got {count}")


@frozen(kw_only=True)
class Options(family.Options):
    """Options of consensus."""

    mask_factor: float = varying(default=0.4, check=_FACTOR)
    """How large a change must be beside those of the others; 0.4 is the middle of 0.2, 0.3, 0.4, 0.5 and 0.6, of
    which the authors' program takes one for each task, on validation data."""
    agreeing_models: int = field(default=2, validator=_COUNT)
    """So many models must have a change that is large enough; 2 as in the paper and the authors' config."""


@frozen(kw_only=True)
class ModelOptions:
    """What consensus wants to know of each model."""

    mask_factor: float | None = varying(default=None, check=_FACTOR)
    """How large a change of this model must be beside those of the others; if not given, that of `options`."""


def _all(told: family.Told) -> list[list[int]]:
    return [[] for _ in told.model_options]


def _agreed(given: family.Slice, tensors: Sequence["Tensor"], out: "Tensor") -> None:
    summed = total(tensors, given.weights, out)
    agreeing = summed.new_zeros(summed.shape)
    for tensor, weight, factor in zip(tensors, given.weights, given.each("mask_factor"), strict=True):
        others = summed.sub(tensor * weight).abs_()
        agreeing.add_(tensor.abs().mul_(abs(weight)).ge_(others.mul_(factor)))
    summed.mul_(agreeing.ge_(min(given.options.agreeing_models, len(tensors))))


count_rounds, measure_tensor, merge_tensor = family.hooks_of(trimmed.Trimmed(_all), _agreed)
