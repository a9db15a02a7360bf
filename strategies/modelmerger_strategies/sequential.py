"""Sequential interpolation: start with the first model and move towards each next one in turn.

    θ ← θ₁,   then   θ ← (1 − wᵢ)·θ + wᵢ·θᵢ   for i = 2, 3, …

Unrolled, model i has the coefficient wᵢ·Π(1 − wⱼ), where j runs over the models behind it. Weights 1, 1/2, 1/3, … give
the plain average. For interpolating weights, see Wortsman et al. 2022, WiSE-FT,
https://arxiv.org/abs/2109.01903, eq. 1.
"""

from collections.abc import Sequence
from math import prod

from modelmerger import ConfigError, Traits, hookimpl

traits = Traits(models=(1, None), ordered=True)


@hookimpl
def find_coefficients(weights: Sequence[float]) -> list[float]:
    """The unrolled coefficients. The first weight must be 1, because no model comes before it."""
    if weights[0] != 1:
        raise ConfigError(
            f"sequential starts with the first model, so its weight must be 1 or absent, got {weights[0]:g}. "
            "Leave it out, or use the strategy weighted"
        )
    return [weight * prod(1 - later for later in weights[i + 1 :]) for i, weight in enumerate(weights)]
