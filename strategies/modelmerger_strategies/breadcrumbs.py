"""Model Breadcrumbs: of each model's changes, neither the largest nor the smallest.

    τ̂ᵢ = τᵢ = θᵢ − θ_base without its ⌊gamma·n⌋ largest magnitudes, and of the rest the ⌊density·n⌋ largest
    merged = θ_base + λ·Σ wᵢτ̂ᵢ        (divided by Σ |wᵢ| with `normalize_weights`)

Davari and Belilovsky 2023, "Model Breadcrumbs", https://arxiv.org/abs/2312.06795, section 3. Where gamma and density
are more than 1 together, fewer outliers are dropped. Elements that are as large as a threshold are all kept.

Use it for many fine-tunes of one base, of which a few elements have changed far more than all others. Do not use it for
models that learned what they know in few elements: these are the ones that it drops.
"""

from attrs import frozen
from modelmerger import Traits, must_be_between, varying

from modelmerger_strategies.task_vectors import family, trimmed
from modelmerger_strategies.task_vectors.merging import added_up
from modelmerger_strategies.task_vectors.numbers import middle_ranks

traits = Traits(models=(1, None), inputs="updates", rounds=trimmed.ROUNDS)
_GAMMA = must_be_between(0, 1)


@frozen(kw_only=True)
class Options(family.Options):
    """Options of breadcrumbs."""

    density: float = varying(default=0.9, check=trimmed.SHARE_KEPT)
    """The share of each task vector that is kept, per tensor; 0.9 as mergekit's documentation advises. The paper
    has no one number: the authors' program searches its β from 0.05 to 0.2, by row, with λ, on validation data."""
    gamma: float = varying(default=0.01, check=_GAMMA)
    """The share of each task vector that is dropped as outliers, per tensor; 0.01 as mergekit has it, and the
    largest that the authors' program searches, from 0.001 on."""
    normalize_weights: bool = False
    """Whether the sum is divided by Σ |wᵢ|; the paper adds up."""


@frozen(kw_only=True)
class ModelOptions(trimmed.ModelOptions):
    """What breadcrumbs wants to know of each model."""

    gamma: float | None = varying(default=None, check=_GAMMA)
    """The share of this model's task vector that is dropped as outliers; where it is not given, that of `options`."""


_keep = trimmed.Trimmed(middle_ranks)
count_rounds, measure_tensor, merge_tensor = family.hooks_of(_keep, added_up)
split_tensor = family.split_by(_keep)
choose_ranges, join_measurements = trimmed.bracket_hooks(_keep)
