"""The Karcher mean of the models on the sphere, tensor by tensor: the point that is nearest to all of them along arcs.

    merged = (Σ wᵢ·‖θᵢ‖) · x,   x the unit vector that minimises Σ wᵢ·∠(x, θᵢ)²,   Σ wᵢ = 1

It is found by x ← exp_x(Σ wᵢ·log_x(θᵢ/‖θᵢ‖)) from the normalised mean of the directions on: Buss and Fillmore 2001,
"Spherical averages and applications to spherical splines and interpolation", https://doi.org/10.1145/502122.502124,
algorithm A1. For language models: Wang, Ye and Yin 2026, https://arxiv.org/abs/2603.04972. Every x on the way is a
linear combination of the models, so the Gram matrix is all that it takes.

For models that are far apart, of which a plain average would be too short. Fine-tunes of one base are nearly parallel:
the result then hardly differs from weighted. Not for models that point in opposite directions.
"""

import math
from collections.abc import Iterator, Sequence

from attrs import field, frozen, validators
from modelmerger import ConfigError, NumericError, Traits, hookimpl, must_be_between

traits = Traits(models=(1, None), gram=True)

LEAST_SINE = 1e-7
"""The uncertainty of an angle from a cosine in double precision."""
Matrix = Sequence[Sequence[float]]


@frozen(kw_only=True)
class Options:
    """Options of karcher. mergekit stops after 10 steps or at 1e-5; a step costs no reading, so the defaults go on."""

    max_iter: int = field(default=100, validator=validators.ge(1))
    """The most steps."""
    tol: float = field(default=LEAST_SINE, validator=must_be_between(0, 1))
    """A step shorter than this angle, in radians, is the last."""


@hookimpl
def find_coefficients(
    weights: Sequence[float], options: Options, gram: Matrix | None, shape: Sequence[int]
) -> list[float] | None:
    """The coefficients of the models in the scaled mean.

    A tensor of one element is averaged. One of zeros has no direction, and its length, 0, counts. Models whose
    directions cancel, or of which one is opposite to the mean, raise `NumericError`.
    """
    total = sum(weights)
    if min(weights) < 0 or not total:
        raise ConfigError(f"the weights {list(weights)} give no mean. Give weights that are not negative and not all 0")
    shares = [weight / total for weight in weights]
    if max(shares) == 1 or math.prod(shape) == 1:
        return shares
    if gram is None:
        return None
    norms = [math.sqrt(gram[i][i]) for i in range(len(gram))]
    used = [i for i, norm in enumerate(norms) if norm and shares[i]]
    if not used:
        return shares
    cosines = [[gram[i][j] / (norms[i] * norms[j]) for j in used] for i in used]
    counted = math.fsum(shares[i] for i in used)
    mean = _mean([shares[i] / counted for i in used], cosines, options)
    length = math.fsum(share * norm for share, norm in zip(shares, norms, strict=True))
    found = dict(zip(used, mean, strict=True))
    return [length * found[i] / norms[i] if i in found else 0.0 for i in range(len(gram))]


def _mean(shares: Sequence[float], cosines: Matrix, options: Options) -> list[float]:
    """The Karcher mean of unit vectors, as a combination of them. cosines: between them."""
    point = _unit(shares, cosines)
    for _ in range(options.max_iter):
        toward = list(_tangents(shares, _times(cosines, point)))
        back = math.fsum(factor * cosine for factor, cosine in toward)
        step = [factor - back * own for (factor, _), own in zip(toward, point, strict=True)]
        angle = _length(step, cosines)
        if angle < options.tol or angle == 0:
            break
        point = [math.cos(angle) * own + math.sin(angle) / angle * s for own, s in zip(point, step, strict=True)]
        point = _unit(point, cosines)
    return point


def _tangents(shares: Sequence[float], cosines: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Of each unit vector its share times Ω/sin Ω, and its cosine with the point. cosines: with the point."""
    for share, unclipped in zip(shares, cosines, strict=True):
        cosine = max(-1.0, min(1.0, unclipped))
        sine = math.sqrt((1 - cosine) * (1 + cosine))
        if sine < LEAST_SINE and cosine < 0:
            raise NumericError(
                f"a model points away from the mean of all (cosine {cosine:.9f}), so no arc to it is the shortest. "
                "Use another strategy for these models."
            )
        yield (share * math.acos(cosine) / sine if sine >= LEAST_SINE else share), cosine


def _unit(vector: Sequence[float], cosines: Matrix) -> list[float]:
    length = _length(vector, cosines)
    if length < LEAST_SINE:
        raise NumericError(
            f"the directions of the models cancel: their mean has the length {length:.1e}, and no direction. "
            "Change a weight, or use another strategy for these models."
        )
    return [number / length for number in vector]


def _length(vector: Sequence[float], cosines: Matrix) -> float:
    products = (a * b for a, b in zip(vector, _times(cosines, vector), strict=True))
    return math.sqrt(max(0.0, math.fsum(products)))


def _times(matrix: Matrix, vector: Sequence[float]) -> list[float]:
    return [math.fsum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]
