"""DARE: what each model changed is dropped at random, the rest is made larger, and all are added up.

    mᵢ ~ Bernoulli(density) for each element,   τ̂ᵢ = mᵢ·τᵢ / density,   τᵢ = θᵢ − θ_base
    merged = θ_base + λ·Σ wᵢτ̂ᵢ        (divided by Σ |wᵢ| with `normalize_weights`)

Yu et al. 2024, "Language models are super Mario", https://arxiv.org/abs/2311.03099, section 3.2. Which elements are
dropped depends on `seed`, the tensor and the model alone.

Use it for fine-tunes that changed each element little (less than about 0.002, as the paper found) and share what they
changed. Do not use it at a low density for models that changed much, nor where the result must not depend on chance.
"""

from attrs import frozen
from modelmerger import Traits, varying

from modelmerger_strategies.task_vectors import dropped, family
from modelmerger_strategies.task_vectors.dropping import drop_evenly
from modelmerger_strategies.task_vectors.merging import added_up

traits = Traits(models=(1, None), inputs="updates", rounds=dropped.ROUNDS)


@frozen(kw_only=True)
class Options(dropped.Options):
    """Options of dare_linear."""

    density: float = varying(default=0.9, check=dropped.PROBABILITY)
    """The probability of each element to be kept; 0.9 as in the authors' programs, which drop 0.1."""
    normalize_weights: bool = False
    """Whether the sum is divided by Σ |wᵢ|; task arithmetic, which the paper merges with, adds up."""


@frozen(kw_only=True)
class ModelOptions(dropped.ModelOptions):
    """What dare_linear wants to know of each model."""


_keep = dropped.Dropped(drop_evenly)
count_rounds, measure_tensor, merge_tensor = family.hooks_of(_keep, added_up)
split_tensor = family.split_by(_keep)
