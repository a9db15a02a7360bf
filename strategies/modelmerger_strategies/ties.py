"""TIES: the largest changes of each model, and of these those that agree with the elected sign, averaged.

    τ̂ᵢ = the ⌊density·n⌋ elements of τᵢ = θᵢ − θ_base with the largest magnitudes
    γ  = sgn(Σ wᵢτ̂ᵢ)
    τ  = Σ wᵢτ̂ᵢ / Σ |wᵢ|,  in each element over the models with sgn(wᵢτ̂ᵢ) = γ
    merged = θ_base + λ·τ

Yadav et al. 2023, "TIES-Merging", https://arxiv.org/abs/2306.01708, section 4.1 and algorithm 1. The threshold of each
tensor is exact. Elements that are as large as the threshold are all kept, so the order of elements does not matter.

Use it for models that change the same elements in different directions. Do not use it for models that were not tuned
from exactly this base, nor for one model alone, which it only thins out.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from attrs import frozen
from modelmerger import Traits, hookimpl, must_be_between, varying

from modelmerger_strategies.task_vectors import trimmed
from modelmerger_strategies.task_vectors.merging import elected_total
from modelmerger_strategies.task_vectors.numbers import kept_count, of_models

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, None), inputs="updates", rounds=trimmed.ROUNDS)
_density = must_be_between(0, 1, open_below=True)


@frozen(kw_only=True)
class Options:
    """Options of ties."""

    density: float = varying(default=0.2, check=_density)
    """The share of each task vector that is kept, per tensor; 0.2 as in the paper, section 5."""
    scaling_factor: float | Literal["matched"] = varying(default="matched")
    """λ, what the merged task vector is multiplied by; `matched`: as long as 0.4 of Σ wᵢτᵢ, per tensor."""
    normalize_weights: bool = True
    """Whether agreeing task vectors are averaged, as in the paper, and not added up."""


@frozen(kw_only=True)
class ModelOptions:
    """What ties wants to know of each model."""

    density: float | None = varying(default=None, check=_density)
    """The share of this model's task vector that is kept; where it is not given, that of `options`."""


@hookimpl
def count_rounds(model_options: Sequence[ModelOptions], options: Options, shape: Sequence[int]) -> int:
    """None for thresholds where all is kept, nor for norms where λ is a number."""
    return trimmed.rounds(options, _ranks(model_options, options, shape))


@hookimpl
def measure_tensor(
    round: int,
    measurements: Sequence["Tensor"],
    tensors: Sequence["Tensor"],
    weights: Sequence[float],
    model_options: Sequence[ModelOptions],
    options: Options,
    shape: Sequence[int],
) -> "Tensor":
    """What the thresholds follow from, then λ."""
    ranks = _ranks(model_options, options, shape)
    return trimmed.measure(round, measurements, tensors, weights, options, ranks, elected_total)


@hookimpl
def merge_tensor(
    measurements: Sequence["Tensor"],
    tensors: Sequence["Tensor"],
    weights: Sequence[float],
    model_options: Sequence[ModelOptions],
    options: Options,
    shape: Sequence[int],
) -> "Tensor":
    """λ·τ of the slice."""
    ranks = _ranks(model_options, options, shape)
    return trimmed.merge_slice(measurements, tensors, weights, options, ranks, elected_total)


def _ranks(model_options: Sequence[ModelOptions], options: Options, shape: Sequence[int]) -> list[list[int]]:
    elements = math.prod(shape)
    densities = of_models("density", options, model_options)
    return [[kept_count(density, elements)] if density < 1 else [] for density in densities]
