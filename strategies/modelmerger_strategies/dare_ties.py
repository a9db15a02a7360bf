"""DARE with the elected signs of TIES: dropped at random, made larger, and averaged where the signs agree.

    mᵢ ~ Bernoulli(density) for each element,   τ̂ᵢ = mᵢ·τᵢ / density,   τᵢ = θᵢ − θ_base
    merged = θ_base + λ·Σ wᵢτ̂ᵢ / Σ |wᵢ|,  in each element over the models with sgn(wᵢτ̂ᵢ) = sgn(Σ wⱼτ̂ⱼ)

Yu et al. 2024, "Language models are super Mario", https://arxiv.org/abs/2311.03099, section 3.2, which merges what is
kept by Yadav et al. 2023, "TIES-Merging", https://arxiv.org/abs/2306.01708, section 4.1. Which elements are dropped
depends on `seed`, the tensor and the model alone.

Use it for fine-tunes that changed each element little, and in different directions. Do not use it at a low density
for models that changed much, nor where the result must not depend on chance.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from attrs import frozen
from modelmerger import Traits, hookimpl, must_be_between, varying

from modelmerger_strategies.task_vectors import dropped
from modelmerger_strategies.task_vectors.dropping import drop_evenly
from modelmerger_strategies.task_vectors.merging import elected_total
from modelmerger_strategies.task_vectors.numbers import of_models

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, None), inputs="updates", rounds=dropped.ROUNDS)
_density = must_be_between(0, 1, open_below=True)


@frozen(kw_only=True)
class Options:
    """Options of dare_ties."""

    density: float = varying(default=0.9, check=_density)
    """The probability of each element to be kept; 0.9 as in the authors' programs, which drop 0.1."""
    rescale: Literal["l1"] | bool = True
    """true: what is kept is divided by `density`, as in the paper; l1: each tensor keeps its sum of magnitudes, as in
    mergekit; false: neither."""
    scaling_factor: float | Literal["matched"] = varying(default="matched")
    """λ, what the merged task vector is multiplied by; `matched`: as long as 0.4 of Σ wᵢτᵢ, per tensor."""
    normalize_weights: bool = True
    """Whether agreeing task vectors are averaged, as in TIES, and not added up."""


@frozen(kw_only=True)
class ModelOptions:
    """What dare_ties wants to know of each model."""

    density: float | None = varying(default=None, check=_density)
    """The probability of each element of this model to be kept; where it is not given, that of `options`."""


@hookimpl
def count_rounds(options: Options) -> int:
    """None for sums of magnitudes without `rescale: l1`, nor for norms where λ is a number."""
    return dropped.rounds(options)


@hookimpl
def measure_tensor(
    round: int,
    measurements: Sequence["Tensor"],
    tensors: Sequence["Tensor"],
    inputs: Sequence[int],
    weights: Sequence[float],
    model_options: Sequence[ModelOptions],
    options: Options,
    random: Callable[[int], "Tensor"],
) -> "Tensor":
    """What the factors of `rescale: l1` follow from, then λ."""
    keep = partial(_keep, tensors, inputs, model_options, options, random)
    return dropped.measure(round, measurements, tensors, weights, options, keep, elected_total)


@hookimpl
def merge_tensor(
    measurements: Sequence["Tensor"],
    tensors: Sequence["Tensor"],
    inputs: Sequence[int],
    weights: Sequence[float],
    model_options: Sequence[ModelOptions],
    options: Options,
    random: Callable[[int], "Tensor"],
) -> "Tensor":
    """λ·τ of the slice."""
    keep = partial(_keep, tensors, inputs, model_options, options, random)
    return dropped.merge_slice(measurements, weights, options, keep, elected_total)


def _keep(
    tensors: Sequence["Tensor"],
    inputs: Sequence[int],
    model_options: Sequence[ModelOptions],
    options: Options,
    random: Callable[[int], "Tensor"],
) -> list["Tensor"]:
    densities = of_models("density", options, model_options)
    return [
        drop_evenly(tensor, density, partial(random, model), divide=options.rescale is True)
        for tensor, model, density in zip(tensors, inputs, densities, strict=True)
    ]
