"""What follows from the options of a tensor: ranks, and whether probabilities make sense."""

import math
from collections.abc import Iterator
from typing import Any

from attrs import evolve
from modelmerger import ConfigError, Problem

from modelmerger_strategies.task_vectors.family import Told


def kept_count(density: float, elements: int) -> int:
    """How many of so many elements a density keeps: ⌊density·elements⌋, at least one."""
    return max(1, int(density * elements))


def middle_ranks(told: Told) -> list[list[int]]:
    """The ranks of the smallest and the largest magnitude that are kept when outliers are dropped, the largest first.

    ⌊gamma·elements⌋ outliers are dropped and the next ⌊density·elements⌋ kept; fewer outliers where both are too many.
    None for a density of 1.
    """
    elements = math.prod(told.shape)
    ranks: list[list[int]] = []
    for density, gamma in zip(told.each("density"), told.each("gamma"), strict=True):
        kept = kept_count(density, elements)
        outliers = min(int(gamma * elements), elements - kept)
        ranks.append([outliers + kept, outliers + 1] if density < 1 else [])
    return ranks


def spread_problems(told: Told) -> Iterator[Problem]:
    """An error for each model whose density − epsilon or density + epsilon is not in (0, 1).

    Numbers that vary by tensor are left to `check_spreads`.
    """
    pairs: Iterator[tuple[Any, Any]] = zip(told.each("density"), told.each("epsilon"), strict=True)
    for model, (density, epsilon) in enumerate(pairs):
        plain = isinstance(density, float) and isinstance(epsilon, float)
        if plain and not (density == 1 or 0 < density - epsilon <= density + epsilon < 1):
            message = (
                f"density {density:g} and epsilon {epsilon:g} give probabilities from {density - epsilon:g} to "
                f"{density + epsilon:g}, and they must lie between 0 and 1. Change one of them; density: 1 keeps all."
            )
            yield Problem(message, f"models[{model}]")


def check_spreads(told: Told) -> None:
    """Raises `ConfigError` with the first of the `spread_problems` of one tensor."""
    if problem := next(spread_problems(told), None):
        raise ConfigError(evolve(problem, where="models"))  # those of weight 0 are left out, so it may be another one
