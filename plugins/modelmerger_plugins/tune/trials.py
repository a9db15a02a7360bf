"""What a search tried: vectors of numbers with their losses, in order, and the best of them."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from modelmerger_plugins.tune.measured import Goal


@frozen
class Trial:
    """A vector that was measured."""

    number: int
    """Counted from 0, which is the start."""
    vector: tuple[float, ...]
    """A number a coordinate."""
    losses: Mapping[str, float]
    """Nats a token of each split, on the lines that are tuned on; of another metric, its value under its name."""
    value: float
    """The objective."""
    excess: float
    """By how much the constraints do not hold; 0 where they do."""
    cost: float
    """The objective, with what the distance from the start costs."""
    seconds: float
    """What it took."""


def best_of(trials: Sequence[Trial]) -> Trial:
    """Of those that meet the constraints, the one that costs least; where none does, the one that misses by least."""
    return min(
        trials, key=lambda trial: (trial.excess > 0, trial.excess if trial.excess > 0 else trial.cost, trial.number)
    )


def trial_of(
    number: int,
    vector: Sequence[float],
    losses: Mapping[str, float],
    goal: Goal,
    away: float,
    seconds: float,
) -> Trial:
    """A vector with the losses of the splits, judged. away: what its distance from the start costs."""
    value = goal.value(losses)
    return Trial(number, tuple(vector), losses, value, goal.excess(losses), value + away, seconds)
