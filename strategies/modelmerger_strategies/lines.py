"""LiNeS: task arithmetic with a scale that grows with the layer, so that early layers stay near the base.

    merged = θ_base + λ·Σ wᵢ·(θᵢ − θ_base),   λ = α + β·(l − 1)/(L − 1) in layer l of L

Wang et al. 2025, "LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging",
https://arxiv.org/abs/2410.17146, equation 3. α is `scaling_factor`, and `growth` goes from 0 to β.

Use it to keep what the base can do in general, which early layers hold. Do not use it for models that learned other
words or another script: that is in the early layers.
"""

from collections.abc import Sequence

from attrs import frozen
from modelmerger import Traits, hookimpl, varying

traits = Traits(models=(1, None), needs_base=True)


@frozen(kw_only=True)
class Options:
    """Options of lines."""

    scaling_factor: float | None = varying(default=None)
    """α, λ of the first layer and of the embedding; where it is not given, 1/n of n models, as in the paper."""
    growth: float = varying(default=(0.0, 0.5))
    """What is added to α, by layer: a list goes evenly from the first layer to the last, whose number the final norm
    and the LM head get too. β is 0.5 as in the paper for one model; for several, the paper tunes it."""


@hookimpl
def find_coefficients(weights: Sequence[float], options: Options) -> list[float]:
    """λ·wᵢ, and for the base 1 minus their sum. Models of weight 0 do not count for n."""
    first = options.scaling_factor
    if first is None:
        first = 1 / max(1, sum(weight != 0 for weight in weights))
    scaled = [(first + options.growth) * weight for weight in weights]
    return [*scaled, 1.0 - sum(scaled)]
