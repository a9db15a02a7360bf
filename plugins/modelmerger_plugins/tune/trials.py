"""What a search tried: vectors of numbers with their losses, in order, and the best of them."""

import math
from collections.abc import Mapping, Sequence

from attrs import frozen
from modelmerger import ConfigError

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
    """The objective; of several ones the first."""
    excess: float
    """By how much the constraints do not hold; 0 where they do."""
    cost: float
    """The objective, with what the distance from the start costs."""
    seconds: float
    """What it took."""
    others: tuple[float, ...] = ()
    """The further objectives."""
    dropped: bool = False
    """Whether some of the lines were enough to drop it; its losses are estimated from these."""

    @property
    def values(self) -> tuple[float, ...]:
        """All objectives."""
        return (self.value, *self.others)

    @property
    def costs(self) -> tuple[float, ...]:
        """All objectives, each with what the distance from the start costs."""
        return tuple(value + self.cost - self.value for value in self.values)


def best_of(trials: Sequence[Trial]) -> Trial:
    """Of those that meet the constraints, the one that costs least; where none does, the one that misses by least.

    Of several objectives the first counts, and where it is equal the next.
    """
    whole = [trial for trial in trials if not trial.dropped and not any(map(math.isnan, trial.costs))] or trials
    return min(whole, key=lambda one: (one.excess > 0, max(0, one.excess), one.costs, one.number))


def pareto_of(trials: Sequence[Trial]) -> list[Trial]:
    """Those that meet the constraints, and that no other one beats in one objective without losing in another."""
    met = [trial for trial in trials if not trial.dropped and trial.excess <= 0]
    return [one for one in met if not any(_beats(other, one) for other in met)]


def _beats(one: Trial, other: Trial) -> bool:
    return one.costs != other.costs and all(a <= b for a, b in zip(one.costs, other.costs, strict=True))


def taken(trials: Sequence[Trial], number: int | None) -> Trial:
    """The trial of a number, or the best where none is given. Raises `ConfigError`."""
    if number is None:
        return best_of(trials)
    found = next((trial for trial in trials if trial.number == number), None)
    if found is None:
        raise ConfigError(f"there is no step {number} to choose: the study has 0 to {trials[-1].number}.")
    if found.dropped:
        raise ConfigError(f"step {number} was dropped after some of the lines. Choose one that was measured on all.")
    return found


def trial_of(
    number: int,
    vector: Sequence[float],
    losses: Mapping[str, float],
    goals: Sequence[Goal],
    away: float,
    seconds: float,
    *,
    dropped: bool = False,
) -> Trial:
    """A vector with the losses of the splits, judged.

    goals: the constraints are those of the first. away: what the distance from the start costs.
    """
    first, *further = goals
    value = first.value(losses)
    others = tuple(goal.value(losses) for goal in further)
    return Trial(number, tuple(vector), losses, value, first.excess(losses), value + away, seconds, others, dropped)
