"""Spherical linear interpolation of two models, tensor by tensor.

    merged = sin((1 − t)·Ω)/sin Ω · u₁ + sin(t·Ω)/sin Ω · u₂,      Ω the angle between the flattened tensors θ₁ and θ₂

Shoemake 1985, "Animating rotation with quaternion curves", https://doi.org/10.1145/325165.325242, section 3.3. With
`normalize_before_slerp`, u are the directions θ/‖θ‖, and the result is scaled to the norm (1 − t)·‖θ₁‖ + t·‖θ₂‖;
without it, u are the tensors themselves. Either way, the result is a linear combination, whose coefficients follow from
⟨θ₁,θ₁⟩, ⟨θ₁,θ₂⟩ and ⟨θ₂,θ₂⟩.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import field, frozen
from modelmerger import (
    ConfigError,
    NumericError,
    Problem,
    Settings,
    Traits,
    hookimpl,
    must_be_between,
    shown_weight,
    varying,
)

traits = Traits(models=(2, 2), gram=True)

LEAST_SINE = 1e-7
"""The uncertainty of sin Ω from a cosine in double precision: angles nearer to 180° cannot be told from it."""


@frozen(kw_only=True)
class Options:
    """Options of slerp."""

    interpolation_factor: float | None = varying(default=None, check=must_be_between(0, 1))
    """The point t on the arc; 0 is the first model; where it is not given, w₂/(w₁+w₂)."""
    extrapolation_factor: float | None = varying(default=None)
    """In place of interpolation_factor, a point t that may also lie beyond the models, below 0 or above 1."""
    normalize_before_slerp: bool = True
    """Directions are interpolated on the sphere and the norms linearly; false: the tensors as they are."""
    epsilon: float = field(default=1e-8, validator=must_be_between(0, 1))
    """Norms and sines below it make the interpolation linear."""


@hookimpl
def check_config(options: Options) -> Iterable[Problem]:
    """Only one of the factors can count."""
    if None not in (options.interpolation_factor, options.extrapolation_factor):
        yield Problem("goes in the place of interpolation_factor. Give one of them", "options.extrapolation_factor")


@hookimpl
def check_compatibility(settings: Settings, options: Options) -> Iterable[Problem]:
    """Warns where interpolation_factor overrules weights that say otherwise."""
    key, factor = _given_factor(options)  # as the config gives it, which may be by layer or pattern
    first, second = (model.weight for model in settings.models)
    agree = first == second
    if isinstance(first, float) and isinstance(second, float):
        agree = agree or math.isclose(
            factor if isinstance(factor, float) else math.nan, second / ((first + second) or math.inf)
        )
    if factor is not None and not agree:
        yield Problem(
            f"{key} {shown_weight(factor)} wins over the weights {shown_weight(first)} and {shown_weight(second)}.",
            "options",
            severity="warning",
        )


@hookimpl
def find_coefficients(
    weights: Sequence[float], options: Options, gram: Sequence[Sequence[float]] | None, shape: Sequence[int]
) -> list[float] | None:
    """The two coefficients, from the Gram matrix; without it, None unless they do not depend on it.

    A tensor of one element, or with a norm below `epsilon`, is interpolated linearly. Opposite tensors raise
    `NumericError`. Otherwise tensors with sin Ω below `epsilon` are interpolated linearly.
    """
    t = _factor(weights, options)
    linear = [1 - t, t]
    if t in (0, 1) or math.prod(shape) == 1:
        return linear
    if gram is None:
        return None
    epsilon = max(options.epsilon, sys.float_info.min)
    norms = math.sqrt(gram[0][0]), math.sqrt(gram[1][1])
    if min(norms) < epsilon:
        return linear
    cosine = max(-1.0, min(1.0, gram[0][1] / (norms[0] * norms[1])))
    sine = math.sqrt((1 - cosine) * (1 + cosine))
    if cosine < 0 and sine < max(epsilon, LEAST_SINE):
        raise NumericError(
            f"the tensors point in opposite directions (cosine {cosine:.9f}), so no arc between them is the shortest. "
            "Use another strategy for these models."
        )
    if sine < epsilon:
        return linear
    angle = math.acos(cosine)
    arcs = math.sin((1 - t) * angle) / sine, math.sin(t * angle) / sine
    if not options.normalize_before_slerp:
        return list(arcs)
    norm = (1 - t) * norms[0] + t * norms[1]
    return [arc * norm / own for arc, own in zip(arcs, norms, strict=True)]


def _given_factor(options: Options) -> tuple[str, Any]:
    if options.extrapolation_factor is not None:
        return "extrapolation_factor", options.extrapolation_factor
    return "interpolation_factor", options.interpolation_factor


def _factor(weights: Sequence[float], options: Options) -> float:
    _, factor = _given_factor(options)
    if factor is not None:
        return float(factor)
    total = sum(weights)
    t = weights[1] / total if total else math.nan
    if not 0 <= t <= 1:
        raise ConfigError(
            f"the weights {weights[0]:g} and {weights[1]:g} give no point between the models. "
            "Give weights that are not negative and not both 0, or interpolation_factor"
        )
    return t
