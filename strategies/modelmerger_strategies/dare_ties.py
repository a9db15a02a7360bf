"""DARE with the elected signs of TIES: dropped at random, made larger, and averaged where the signs agree.

    mᵢ ~ Bernoulli(density) for each element,   τ̂ᵢ = mᵢ·τᵢ / density,   τᵢ = θᵢ − θ_base
    merged = θ_base + λ·Σ wᵢτ̂ᵢ / Σ |wᵢ|,  in each element over the models with sgn(wᵢτ̂ᵢ) = sgn(Σ wⱼτ̂ⱼ)

Yu et al. 2024, "Language models are super Mario", https://arxiv.org/abs/2311.03099, section 3.2, which merges what is
kept by Yadav et al. 2023, "TIES-Merging", https://arxiv.org/abs/2306.01708, section 4.1. Which elements are dropped
depends on `seed`, the tensor and the model alone.

Use it for fine-tunes that changed each element little, and in different directions. Do not use it at a low density
for models that changed much, nor where the result must not depend on chance.
"""

from attrs import frozen
from modelmerger import Traits, varying

from modelmerger_strategies.task_vectors import dropped, family
from modelmerger_strategies.task_vectors.dropping import drop_evenly
from modelmerger_strategies.task_vectors.merging import elected

traits = Traits(models=(1, None), inputs="updates", rounds=dropped.ROUNDS)


@frozen(kw_only=True)
class Options(dropped.Options):
    """Options of dare_ties."""

    density: float = varying(default=0.9, check=dropped.PROBABILITY)
    """The probability of each element to be kept; 0.9 as in the authors' programs, which drop 0.1."""
    normalize_weights: bool = True
    """Whether agreeing task vectors are averaged, as in TIES, and not added up."""


@frozen(kw_only=True)
class ModelOptions(dropped.ModelOptions):
    """What dare_ties wants to know of each model."""


count_rounds, measure_tensor, merge_tensor = family.hooks_of(dropped.Dropped(drop_evenly), elected)
