"""DELLA: small changes are dropped more often than large ones, and what is left is averaged where the signs agree.

    pᵢ = density − epsilon … density + epsilon, evenly spaced by the rank of |τᵢ| within its row, τᵢ = θᵢ − θ_base
    mᵢ ~ Bernoulli(pᵢ) for each element,   τ̂ᵢ = mᵢ·τᵢ / pᵢ
    merged = θ_base + λ·Σ wᵢτ̂ᵢ / Σ |wᵢ|,  in each element over the models with sgn(wᵢτ̂ᵢ) = sgn(Σ wⱼτ̂ⱼ)

Deep et al. 2024, "DELLA-Merging", https://arxiv.org/abs/2406.11617, sections 3.1 to 3.3; its ε is twice `epsilon`, and
its p drops. Which elements are dropped depends on `seed`, the tensor and the model alone.

Use it in place of dare_ties at a low density, where it matters which elements are kept. Do not use it where the result
must not depend on chance.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from attrs import frozen
from modelmerger import Problem, Settings, Traits, hookimpl, must_be_between, varying

from modelmerger_strategies.task_vectors import dropped
from modelmerger_strategies.task_vectors.dropping import drop_by_rank
from modelmerger_strategies.task_vectors.merging import elected_total
from modelmerger_strategies.task_vectors.numbers import check_spreads, of_models, spread_problems

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, None), inputs="updates", granularity="rowwise", rounds=dropped.ROUNDS)
_density, _epsilon = must_be_between(0, 1, open_below=True), must_be_between(0, 0.5, open_above=True)


@frozen(kw_only=True)
class Options:
    """Options of della."""

    density: float = varying(default=0.7, check=_density)
    """The mean probability of an element to be kept; 0.7 as in the authors' example, which drops 0.3."""
    epsilon: float = varying(default=0.07, check=_epsilon)
    """Probabilities lie between density − epsilon and density + epsilon; 0.07 is half of the window of 0.14 in the
    authors' example."""
    rescale: Literal["l1"] | bool = True
    """true: what is kept is divided by its probability, as in the paper; l1: each tensor keeps its sum of magnitudes,
    as in mergekit; false: neither."""
    scaling_factor: float | Literal["matched"] = varying(default="matched")
    """λ, what the merged task vector is multiplied by; `matched`: as long as 0.4 of Σ wᵢτᵢ, per tensor."""
    normalize_weights: bool = True
    """Whether agreeing task vectors are averaged, as in the paper, and not added up."""


@frozen(kw_only=True)
class ModelOptions:
    """What della wants to know of each model."""

    density: float | None = varying(default=None, check=_density)
    """The mean probability of an element of this model to be kept; where it is not given, that of `options`."""
    epsilon: float | None = varying(default=None, check=_epsilon)
    """How far the probabilities of this model lie around its density; where it is not given, that of `options`."""


@hookimpl
def check_config(settings: Settings, options: Options) -> Iterable[Problem]:
    """An error where probabilities would not lie between 0 and 1."""
    yield from spread_problems(options, settings.model_options)


@hookimpl
def count_rounds(model_options: Sequence[ModelOptions], options: Options) -> int:
    """None for sums of magnitudes without `rescale: l1`, nor for norms where λ is a number."""
    check_spreads(options, model_options)
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
    densities, epsilons = (of_models(name, options, model_options) for name in ("density", "epsilon"))
    return [
        drop_by_rank(tensor, density, epsilon, partial(random, model), divide=options.rescale is True)
        for tensor, model, density, epsilon in zip(tensors, inputs, densities, epsilons, strict=True)
    ]
