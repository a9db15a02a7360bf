"""The geometric median of the models, tensor by tensor: the point with the least sum of distances to all of them.

    merged = argmin_θ Σ wᵢ·‖θ − θᵢ‖

It is found by Weiszfeld's steps θ ← Σ (wᵢ/‖θ − θᵢ‖)·θᵢ / Σ (wᵢ/‖θ − θᵢ‖) from the weighted mean on. Before that it is
asked whether a model is the median itself, by the condition of Vardi and Zhang 2000, "The multivariate L₁-median and
associated data depth", https://doi.org/10.1073/pnas.97.4.1423. For models of several origins see Pillutla et al. 2022,
"Robust aggregation for federated learning", https://arxiv.org/abs/1912.13445. Every step is a linear combination of the
models, so the Gram matrix is all that it takes.

For three or more fine-tunes of one base, of which some may have gone wrong: less than half of the weight cannot draw
the median far away. Not for two models: it is then the heavier one, or at equal weights their mean.
"""

import math
from collections.abc import Sequence

from attrs import field, frozen, validators
from modelmerger import ConfigError, Traits, hookimpl, must_be_between

traits = Traits(models=(1, None), gram=True)

LEAST = 1e-14
"""A squared distance below this part of the squared norms is the rounding of the inner products."""
SURE = 1e-9
"""A pull that is less than what holds a model by no more than this part of it is as strong: two models of equal weight
are then averaged, whatever rounding makes of their distances."""
Matrix = Sequence[Sequence[float]]


@frozen(kw_only=True)
class Options:
    """Options of geometric_median. A step costs no reading, so the defaults are those of full convergence."""

    max_iter: int = field(default=1000, validator=validators.ge(1))
    """The most steps."""
    tol: float = field(default=1e-9, validator=must_be_between(0, 1))
    """A step that changes no coefficient by more is the last."""


@hookimpl
def find_coefficients(weights: Sequence[float], options: Options, gram: Matrix | None) -> list[float] | None:
    """The coefficients of the models in their median; they are not negative, and add up to 1."""
    total = sum(weights)
    if min(weights) < 0 or not total:
        raise ConfigError(
            f"the weights {list(weights)} give no median. Give weights that are not negative and not all 0"
        )
    shares = [weight / total for weight in weights]
    if max(shares) == 1:
        return shares
    if gram is None:
        return None
    squares = _squared_distances(gram)
    for place in range(len(shares)):
        if _is_median(place, shares, squares):
            return [float(i == place) for i in range(len(shares))]
    return _weiszfeld(shares, squares, options)


def _squared_distances(gram: Matrix) -> list[list[float]]:
    order = range(len(gram))

    def square(i: int, j: int) -> float:
        found = gram[i][i] + gram[j][j] - 2 * gram[i][j]
        return found if found > LEAST * (gram[i][i] + gram[j][j]) else 0.0

    return [[square(i, j) for j in order] for i in order]


def _is_median(place: int, shares: Sequence[float], squares: Matrix) -> bool:
    """Whether the others pull at this model by less than what holds it: its weight, and that of its equals."""
    away = [(j, math.sqrt(square)) for j, square in enumerate(squares[place]) if square]
    held = math.fsum(share for share, square in zip(shares, squares[place], strict=True) if not square)
    pull = math.fsum(
        shares[j] * shares[k] * (squares[place][j] + squares[place][k] - squares[j][k]) / (2 * a * b)
        for j, a in away
        for k, b in away
    )
    return bool(away) and math.sqrt(max(0.0, pull)) < held * (1 - SURE)


def _weiszfeld(shares: Sequence[float], squares: Matrix, options: Options) -> list[float]:
    point = list(shares)
    for _ in range(options.max_iter):
        to_each = [math.fsum(c * square for c, square in zip(point, row, strict=True)) for row in squares]
        spread = math.fsum(c * d for c, d in zip(point, to_each, strict=True)) / 2
        distances = [math.sqrt(max(0.0, d - spread)) for d in to_each]
        if not all(distances):  # the models are equal, or the point has come upon one of them
            break
        pulls = [share / distance for share, distance in zip(shares, distances, strict=True)]
        total = math.fsum(pulls)
        before, point = point, [pull / total for pull in pulls]
        if max(abs(a - b) for a, b in zip(before, point, strict=True)) <= options.tol:
            break
    return point
