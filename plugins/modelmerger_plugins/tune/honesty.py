"""What test lines say of two models: paired intervals, by drawing lines with both models' nats of each."""

from collections.abc import Callable, Mapping

import numpy as np
from attrs import frozen

from modelmerger_plugins.tune.measured import Lines, Nats

DRAWS = 2000
SHARE = 0.95


@frozen
class Interval:
    """A difference and the range that it lies in by 95 %."""

    value: float
    """As measured."""
    low: float
    """The lower end."""
    high: float
    """The upper end."""

    @property
    def clear(self) -> bool:
        """Whether 0 is outside."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, float]:
        """As plain data."""
        return {"value": self.value, "low": self.low, "high": self.high}


Judge = Callable[[Mapping[str, float]], float]
"""Losses by split → what they come to; the smaller, the better."""


def gain(judge: Judge, tuned: Nats, other: Nats, lines: Lines, seed: int) -> Interval:
    """By how much less the tuned model comes to than the other: a paired bootstrap over the lines of each split."""
    return compared(lambda one, two: judge(two) - judge(one), tuned, other, lines, seed)


def ratio(judge: Judge, tuned: Nats, other: Nats, lines: Lines, seed: int) -> Interval:
    """What the tuned model comes to, as a share of what the other does."""
    return compared(lambda one, two: judge(one) / judge(two), tuned, other, lines, seed)


def compared(
    between: Callable[[Mapping[str, float], Mapping[str, float]], float],
    one: Nats,
    two: Nats,
    lines: Lines,
    seed: int,
) -> Interval:
    """Something between the losses of two models, and its interval."""
    generator = np.random.default_rng(seed)
    counts = {split: lines.counts(split) for split in lines.splits}
    found = np.empty(DRAWS)
    for draw in range(DRAWS):
        first, second = {}, {}
        for split, own in counts.items():
            drawn = generator.integers(len(own), size=len(own))
            tokens = own[drawn].sum()
            first[split], second[split] = one[split][drawn].sum() / tokens, two[split][drawn].sum() / tokens
        found[draw] = between(first, second)
    low, high = np.quantile(found, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    losses = [{split: float(nats[split].sum() / counts[split].sum()) for split in counts} for nats in (one, two)]
    return Interval(float(between(losses[0], losses[1])), float(low), float(high))
