"""Sequential interpolation: start with the first model and move towards each next one in turn.

    θ ← θ₁,   then   θ ← (1 − wᵢ)·θ + wᵢ·θᵢ   for i = 2, 3, …

Unrolled, model i has the coefficient wᵢ·Π(1 − wⱼ) over the j behind it. Weights 1, 1/2, 1/3, … give the plain average.
Interpolating weights step by step: Wortsman et al. 2022, WiSE-FT, https://arxiv.org/abs/2109.01903, eq. 1, applied in order.
"""

from collections.abc import Sequence
from math import prod

from modelmerger import ConfigError, Traits, hookimpl

traits = Traits(models=(1, None))


@hookimpl
def find_coefficients(weights: Sequence[float]) -> list[float]:
    """The unrolled coefficients. The first weight must be 1: there is nothing before it to keep a part of."""
    if weights[0] != 1:
        raise ConfigError(
            f"sequential starts with the first model, so its weight must be 1 or absent, got {weights[0]:g}. "
            "Leave it out, or use the strategy weighted"
        )
    return [weight * prod(1 - later for later in weights[i + 1 :]) for i, weight in enumerate(weights)]
