"""NuSLERP: spherical linear interpolation of what two models change of their base, tensor by tensor.

    merged = θ_base + sin((1 − t)·Ω)/sin Ω · τ₁ + sin(t·Ω)/sin Ω · τ₂,   t = w₂/(w₁ + w₂),   τᵢ = θᵢ − θ_base

Ω is the angle between the flattened task vectors τ₁ and τ₂. The arc is that of Shoemake 1985, "Animating rotation with
quaternion curves", https://doi.org/10.1145/325165.325242, section 3.3. Its use on task vectors is mergekit's, from
which the name is.

For two fine-tunes of one base, whose task vectors are nearly orthogonal: the plain average would shrink their norm to
0.7 of what it was, and this keeps it. Not for models without a common base: that is slerp.
"""

import math
from collections.abc import Sequence

from modelmerger import ConfigError, NumericError, Traits, hookimpl

traits = Traits(models=(2, 2), inputs="updates", gram=True)

LEAST_SINE = 1e-7
"""The uncertainty of sin Ω from a cosine in double precision: smaller angles cannot be told from 0 or 180°."""


@hookimpl
def find_coefficients(
    weights: Sequence[float], gram: Sequence[Sequence[float]] | None, shape: Sequence[int]
) -> list[float] | None:
    """The two coefficients.

    A tensor of one element, a task vector of zeros and parallel task vectors are interpolated linearly. Opposite ones
    raise `NumericError`, and weights that give no point between the models `ConfigError`.
    """
    if min(weights) < 0 or not sum(weights):
        raise ConfigError(
            f"the weights {weights[0]:g} and {weights[1]:g} give no point between the models. "
            "Give weights that are not negative and not both 0"
        )
    t = weights[1] / sum(weights)
    linear = [1 - t, t]
    if t in (0, 1) or math.prod(shape) == 1:
        return linear
    if gram is None:
        return None
    norms = math.sqrt(gram[0][0]) * math.sqrt(gram[1][1])
    if not norms:
        return linear
    cosine = max(-1.0, min(1.0, gram[0][1] / norms))
    sine = math.sqrt((1 - cosine) * (1 + cosine))
    if sine < LEAST_SINE and cosine < 0:
        raise NumericError(
            f"what the models change of the base points in opposite directions (cosine {cosine:.9f}), so no arc "
            "between them is the shortest. Use another strategy for these models."
        )
    if sine < LEAST_SINE:
        return linear
    angle = math.acos(cosine)
    return [math.sin((1 - t) * angle) / sine, math.sin(t * angle) / sine]
