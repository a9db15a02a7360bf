"""DELLA's MagPrune without an election: small changes are dropped more often than large ones, and all are added up.

    pᵢ = density − epsilon … density + epsilon, evenly spaced by the rank of |τᵢ| within its row, τᵢ = θᵢ − θ_base
    mᵢ ~ Bernoulli(pᵢ) for each element,   τ̂ᵢ = mᵢ·τᵢ / pᵢ
    merged = θ_base + λ·Σ wᵢτ̂ᵢ        (divided by Σ |wᵢ| with `normalize_weights`)

Deep et al. 2024, "DELLA-Merging", https://arxiv.org/abs/2406.11617, section 3.1; its ε is twice `epsilon`, and its p
drops. Which elements are dropped depends on `seed`, the tensor and the model alone.

Use it in place of dare_linear at a low density, where it matters which elements are kept. Do not use it where the
result must not depend on chance.
"""

from collections.abc import Iterable

from attrs import frozen
from modelmerger import Problem, Settings, Traits, hookimpl, must_be_between, varying

from modelmerger_strategies.task_vectors import dropped, family
from modelmerger_strategies.task_vectors.dropping import drop_by_rank
from modelmerger_strategies.task_vectors.merging import added_up
from modelmerger_strategies.task_vectors.numbers import check_spreads, spread_problems

traits = Traits(models=(1, None), inputs="updates", granularity="rowwise", rounds=dropped.ROUNDS)
_EPSILON = must_be_between(0, 0.5, open_above=True)


@frozen(kw_only=True)
class Options(dropped.Options):
    """Options of della_linear."""

    density: float = varying(default=0.7, check=dropped.PROBABILITY)
    """The mean probability of an element to be kept; 0.7 as in the authors' example, which drops 0.3."""
    epsilon: float = varying(default=0.07, check=_EPSILON)
    """Probabilities lie between density − epsilon and density + epsilon; 0.07 is half of the window of 0.14 in the
    authors' example."""
    normalize_weights: bool = False
    """Whether the sum is divided by Σ |wᵢ|; as in mergekit, it is not."""


@frozen(kw_only=True)
class ModelOptions(dropped.ModelOptions):
    """What della_linear wants to know of each model."""

    epsilon: float | None = varying(default=None, check=_EPSILON)
    """How far the probabilities of this model lie around its density; where it is not given, that of `options`."""


@hookimpl
def check_config(settings: Settings, options: Options) -> Iterable[Problem]:
    """An error where probabilities would not lie between 0 and 1."""
    yield from spread_problems(family.Told(options=options, model_options=settings.model_options, shape=()))


_keep = dropped.Dropped(drop_by_rank, check_spreads)
count_rounds, measure_tensor, merge_tensor = family.hooks_of(_keep, added_up)
split_tensor = family.split_by(_keep)
