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
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from modelmerger import Check, Traits, hookimpl, must_be_between, varying

from modelmerger_strategies.task_vectors import scaling
from modelmerger_strategies.task_vectors.merging import total
from modelmerger_strategies.task_vectors.numbers import of_models

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, None), inputs="updates")
_mask_factor = must_be_between(0, 10)
_count = Check({"minimum": 1}, lambda count: None if count >= 1 else f"must be at least 1, got {count}")


@frozen(kw_only=True)
class Options:
    """Options of consensus."""

    mask_factor: float = varying(default=0.4, check=_mask_factor)
    """How large a change must be beside those of the others; 0.4 is the middle of the paper's 0.2 to 0.6."""
    agreeing_models: int = field(default=2, validator=_count)
    """So many models must have a change that is large enough; 2 as in the paper."""
    scaling_factor: float | Literal["matched"] = varying(default="matched")
    """λ, what the merged task vector is multiplied by; `matched`: as long as 0.4 of Σ wᵢτᵢ, per tensor."""


@frozen(kw_only=True)
class ModelOptions:
    """What consensus wants to know of each model."""

    mask_factor: float | None = varying(default=None, check=_mask_factor)
    """How large a change of this model must be beside those of the others; if not given, that of `options`."""


@hookimpl
def count_rounds(options: Options) -> int:
    """None where λ is a number."""
    return int(options.scaling_factor == "matched")


@hookimpl
def measure_tensor(
    tensors: Sequence["Tensor"],
    weights: Sequence[float],
    model_options: Sequence[ModelOptions],
    options: Options,
) -> "Tensor":
    """The norms that λ follows from."""
    return scaling.measure(_merged(tensors, weights, model_options, options), tensors, weights)


@hookimpl
def merge_tensor(
    tensors: Sequence["Tensor"],
    measurements: Sequence["Tensor"],
    weights: Sequence[float],
    model_options: Sequence[ModelOptions],
    options: Options,
) -> "Tensor":
    """λ·τ of the slice."""
    merged = _merged(tensors, weights, model_options, options)
    return merged.mul_(scaling.scale(options.scaling_factor, len(tensors), measurements))


def _merged(
    tensors: Sequence["Tensor"], weights: Sequence[float], model_options: Sequence[ModelOptions], options: Options
) -> "Tensor":
    summed = total(tensors, weights)
    agreeing = summed.new_zeros(summed.shape)
    for tensor, weight, factor in zip(tensors, weights, of_models("mask_factor", options, model_options), strict=True):
        others = summed.sub(tensor, alpha=weight).abs_()
        agreeing.add_(tensor.abs().mul_(abs(weight)).ge_(others.mul_(factor)))
    return summed.mul_(agreeing.ge_(min(options.agreeing_models, len(tensors))))
