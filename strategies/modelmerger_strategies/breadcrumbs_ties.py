"""Model Breadcrumbs with the elected signs of TIES.

    τ̂ᵢ = as in breadcrumbs: neither the ⌊gamma·n⌋ largest magnitudes of τᵢ nor those behind the next ⌊density·n⌋
    merged = θ_base + λ·Σ wᵢτ̂ᵢ,  in each element over the models with sgn(wᵢτ̂ᵢ) = sgn(Σ wⱼτ̂ⱼ)
    (divided by Σ |wᵢ| over the same models with `normalize_weights`)

Davari and Belilovsky 2023, https://arxiv.org/abs/2312.06795, section 3, with the election of Yadav et al. 2023,
https://arxiv.org/abs/2306.01708, section 4.1. No paper describes both together: mergekit does, and it adds up.

Use it where breadcrumbs is right and the models disagree in many elements. Do not use it for one model, nor for models
that were not tuned from exactly this base.
"""

from attrs import frozen
from modelmerger import Traits, must_be_between, varying

from modelmerger_strategies.task_vectors import family, trimmed
from modelmerger_strategies.task_vectors.merging import elected
from modelmerger_strategies.task_vectors.numbers import middle_ranks

traits = Traits(models=(1, None), inputs="updates", rounds=trimmed.ROUNDS)
_GAMMA = must_be_between(0, 1)


@frozen(kw_only=True)
class Options(family.Options):
    """Options of breadcrumbs_ties."""

    density: float = varying(default=0.9, check=trimmed.SHARE_KEPT)
    """The share of each task vector that is kept, per tensor; 0.9 as mergekit's documentation advises. The paper
    has no one number: the authors' program searches its β from 0.05 to 0.2, by row, with λ, on validation data."""
    gamma: float = varying(default=0.01, check=_GAMMA)
    """The share of each task vector that is dropped as outliers, per tensor; 0.01 as mergekit has it, and the
    largest that the authors' program searches, from 0.001 on."""
    normalize_weights: bool = False
    """Whether agreeing task vectors are averaged; mergekit, the only source, adds them up."""


@frozen(kw_only=True)
class ModelOptions(trimmed.ModelOptions):
    """What breadcrumbs_ties wants to know of each model."""

    gamma: float | None = varying(default=None, check=_GAMMA)
    """The share of this model's task vector that is dropped as outliers; where it is not given, that of `options`."""


_keep = trimmed.Trimmed(middle_ranks)
count_rounds, measure_tensor, merge_tensor = family.hooks_of(_keep, elected)
choose_ranges, join_measurements = trimmed.bracket_hooks(_keep)
