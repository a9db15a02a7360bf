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

from attrs import frozen
from modelmerger import Traits, varying

from modelmerger_strategies.task_vectors import family, trimmed
from modelmerger_strategies.task_vectors.merging import elected
from modelmerger_strategies.task_vectors.numbers import kept_count

traits = Traits(models=(1, None), inputs="updates", rounds=trimmed.ROUNDS)


@frozen(kw_only=True)
class Options(family.Options):
    """Options of ties."""

    density: float = varying(default=0.2, check=trimmed.SHARE_KEPT)
    """The share of each task vector that is kept, per tensor; 0.2 as in the paper, section 5."""
    normalize_weights: bool = True
    """Whether agreeing task vectors are averaged, as in the paper, and not added up."""


@frozen(kw_only=True)
class ModelOptions(trimmed.ModelOptions):
    """What ties wants to know of each model."""


def _ranks(told: family.Told) -> list[list[int]]:
    elements = math.prod(told.shape)
    return [[kept_count(density, elements)] if density < 1 else [] for density in told.each("density")]


_keep = trimmed.Trimmed(_ranks)
count_rounds, measure_tensor, merge_tensor = family.hooks_of(_keep, elected)
choose_ranges, join_measurements = trimmed.bracket_hooks(_keep)
