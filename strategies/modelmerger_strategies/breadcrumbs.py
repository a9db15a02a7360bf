"""Model Breadcrumbs: of each model's changes, neither the largest nor the smallest.

    τ̂ᵢ = τᵢ = θᵢ − θ_base without its ⌊gamma·n⌋ largest magnitudes, and of the rest the ⌊density·n⌋ largest
    merged = θ_base + λ·Σ wᵢτ̂ᵢ        (divided by Σ |wᵢ| with `normalize_weights`)

Davari and Belilovsky 2023, "Model Breadcrumbs", https://arxiv.org/abs/2312.06795, section 3. Where gamma and density
are more than 1 together, fewer outliers are dropped. Elements that are as large as a threshold are all kept.

Use it for many fine-tunes of one base, of which a few elements have changed far more than all others. Do not use it for
models that learned what they know in few elements: these are the ones that it drops.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from attrs import frozen
from modelmerger import Traits, hookimpl, must_be_between, varying

from modelmerger_strategies.task_vectors import trimmed
from modelmerger_strategies.task_vectors.merging import plain_total
from modelmerger_strategies.task_vectors.numbers import middle_ranks, of_models

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, None), inputs="updates", rounds=trimmed.ROUNDS)
_density, _gamma = must_be_between(0, 1, open_below=True), must_be_between(0, 1)


@frozen(kw_only=True)
class Options:
    """Options of breadcrumbs."""

    density: float = varying(default=0.9, check=_density)
    """The share of each task vector that is kept, per tensor; 0.9 as mergekit's documentation advises."""
    gamma: float = varying(default=0.01, check=_gamma)
    """The share of each task vector that is dropped as outliers, per tensor; 0.01 as mergekit has it."""
    scaling_factor: float | Literal["matched"] = varying(default="matched")
    """λ, what the merged task vector is multiplied by; `matched`: as long as 0.4 of Σ wᵢτᵢ, per tensor."""
    normalize_weights: bool = False
    """Whether the sum is divided by Σ |wᵢ|; the paper adds up."""


@frozen(kw_only=True)
class ModelOptions:
    """What breadcrumbs wants to know of each model."""

    density: float | None = varying(default=None, check=_density)
    """The share of this model's task vector that is kept; where it is not given, that of `options`."""
    gamma: float | None = varying(default=None, check=_gamma)
    """The share of this model's task vector that is dropped as outliers; where it is not given, that of `options`."""


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
    return trimmed.measure(round, measurements, tensors, weights, options, ranks, plain_total)


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
    return trimmed.merge_slice(measurements, tensors, weights, options, ranks, plain_total)


def _ranks(model_options: Sequence[ModelOptions], options: Options, shape: Sequence[int]) -> list[list[int]]:
    return middle_ranks(
        of_models("density", options, model_options), of_models("gamma", options, model_options), math.prod(shape)
    )
