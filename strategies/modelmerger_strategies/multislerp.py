"""MultiSLERP: the mean direction of any number of task vectors, at their mean length, tensor by tensor.

    merged = θ_base + (Σ wᵢ·‖τᵢ‖) · m/‖m‖,   m = Σ wᵢ·τᵢ/‖τᵢ‖,   τᵢ = θᵢ − θ_base

The weights w are divided by their sum with `normalize_weights`. Goddard 2025,
https://goddard.blog/posts/multislerp-wow-what-a-cool-idea. The step in the tangent space that is described there is
zero: at m, the weighted sum of the tangents Σ wᵢ·(uᵢ − ⟨uᵢ, m⟩·m) vanishes by what m is. For the mean along the sphere
see Buss and Fillmore 2001, https://doi.org/10.1145/502122.502124, which is the strategy karcher.

For three or more fine-tunes of one base that should all count, where the average of their task vectors is too short.
Not for task vectors that contradict each other: the direction is then chance, and gets the full length.
"""

import math
from collections.abc import Sequence

from attrs import frozen
from modelmerger import ConfigError, NumericError, Traits, hookimpl

traits = Traits(models=(1, None), inputs="updates", gram=True)

LEAST_LENGTH = 1e-7
"""The uncertainty of ‖m‖/Σ wᵢ from inner products in double precision."""


@frozen(kw_only=True)
class Options:
    """Options of multislerp."""

    normalize_weights: bool = True
    """Whether to divide the weights by their sum, as mergekit does by default."""


@hookimpl
def find_coefficients(
    weights: Sequence[float], options: Options, gram: Sequence[Sequence[float]] | None, shape: Sequence[int]
) -> list[float] | None:
    """The coefficient wᵢ·s/‖τᵢ‖ of each model, where s is the length of the result over ‖m‖.

    A single model and a tensor of one element are scaled by the weights. A task vector of zeros has no direction, and
    its length counts. Task vectors whose directions cancel raise `NumericError`.
    """
    total = sum(weights)
    if min(weights) < 0 or not total:
        raise ConfigError(
            f"the weights {list(weights)} give no mean direction. Give weights that are not negative and not all 0"
        )
    shares = [weight / total for weight in weights] if options.normalize_weights else list(weights)
    if sum(share != 0 for share in shares) == 1 or math.prod(shape) == 1:
        return shares
    if gram is None:
        return None
    norms = [math.sqrt(gram[i][i]) for i in range(len(gram))]
    directed = [share / norm if norm else 0.0 for share, norm in zip(shares, norms, strict=True)]
    if not any(directed):
        return shares
    counted = math.fsum(share for share, one in zip(shares, directed, strict=True) if one)
    length = math.sqrt(
        max(
            0.0,
            math.fsum(
                a * b * g for a, row in zip(directed, gram, strict=True) for b, g in zip(directed, row, strict=True)
            ),
        )
    )
    if length < LEAST_LENGTH * counted:
        raise NumericError(
            f"the directions of what the models change of the base cancel: their mean has the length {length:.1e}, "
            "and no direction. Change a weight, or use another strategy for these models."
        )
    scale = math.fsum(share * norm for share, norm in zip(shares, norms, strict=True)) / length
    return [one * scale for one in directed]
