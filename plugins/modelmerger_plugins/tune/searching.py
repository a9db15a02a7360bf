"""The two searches that need no other library: down the gradient, and the one-pass rule of gaps."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import field, frozen
from modelmerger import ConfigError, Problem

from modelmerger_plugins.tune.asked import Progress
from modelmerger_plugins.tune.coordinates import Space
from modelmerger_plugins.tune.descent import descend, rates_of
from modelmerger_plugins.tune.distance import Distance
from modelmerger_plugins.tune.evaluating import ByCoefficients, Evaluator
from modelmerger_plugins.tune.fineness import Stage, stages
from modelmerger_plugins.tune.measured import Goal, per_token
from modelmerger_plugins.tune.section import Search
from modelmerger_plugins.tune.study import Study
from modelmerger_plugins.tune.trials import Trial, trial_of

TRIAL = "trial"


@frozen(eq=False)
class Task:
    """What a search is about."""

    space: Space
    """The numbers."""
    goal: Goal
    """What is made small, on the lines to tune on."""
    search: Search
    """How."""
    study: Study = field(repr=False)
    """Where every trial is written."""
    progress: Progress = field(repr=False)
    """Who is told."""
    distance: Distance = field(repr=False)
    """Of numbers from the start."""
    trials: list[Trial] = field(factory=list)
    """What was tried so far; it is there when a signal ends the search."""
    others: Sequence[Goal] = ()
    """What is made small as well, without any constraints."""

    @property
    def goals(self) -> list[Goal]:
        """Everything that is made small."""
        return [self.goal, *self.others]

    def away(self, vector: Sequence[float]) -> float:
        """What the distance of a vector from the start costs."""
        return self.search.penalty * self.distance.at(vector)

    def add(self, vector: Sequence[float], losses: dict[str, float], seconds: float, *, dropped: bool = False) -> Trial:
        """A trial more."""
        away = self.away(vector)
        found = trial_of(len(self.trials), vector, losses, self.goals, away, seconds, dropped=dropped)
        self.trials.append(found)
        self.progress(len(self.trials), self.search.steps + 1, found.value)
        return found

    def measure(self, evaluator: Evaluator, vector: Sequence[float]) -> Trial:
        """A vector measured, or found in the study."""
        row = self.study.found(kind=TRIAL, number=len(self.trials))
        if row is None or row["vector"] != list(vector):
            started = time.monotonic()
            losses = per_token(evaluator.nats(self.goal.lines, vector), self.goal.lines)
            row = _row(len(self.trials), vector, losses, time.monotonic() - started)
            self.study.add(row)
        return self.add(vector, row["losses"], row["seconds"])


def by_gradient(task: Task, evaluator: ByCoefficients) -> None:
    """Steps down the gradient, from coarse to fine; the last vector is measured too."""

    def slopes(vector: np.ndarray) -> np.ndarray:
        given = [float(number) for number in vector]
        number = len(task.trials)
        row = task.study.found(kind=TRIAL, number=number)
        if row is None or row["vector"] != given or "slopes" not in row:
            started = time.monotonic()
            nats, found = evaluator.slopes(task.goal.lines, given)
            losses = per_token(nats, task.goal.lines)
            row = _row(number, given, losses, time.monotonic() - started)
            row["slopes"] = {split: [float(one) for one in slope] for split, slope in found.items()}
            task.study.add(row)
        task.add(given, row["losses"], row["seconds"])
        weights = task.goal.slopes(row["losses"])
        total = np.sum([weight * np.array(row["slopes"][split]) for split, weight in weights.items()], axis=0)
        return np.asarray(total + task.search.penalty * task.distance.slopes(given))

    vector, bounds = np.array(task.space.start), task.space.bounds
    rates = rates_of(task.search.rate, task.search.steps)
    for stage in stages(task.space, task.search.steps):
        own, rates = rates[: stage.steps], rates[stage.steps :]
        first = [bounds[i] for i in stage.firsts]

        def gathered(numbers: np.ndarray, stage: Stage = stage) -> np.ndarray:
            return stage.gathered(slopes(numbers[stage.groups]))

        for numbers in descend(vector[stage.firsts], first, own, gathered):
            vector = numbers[stage.groups]
    task.measure(evaluator, [float(number) for number in vector])


def by_gaps(task: Task, evaluator: Evaluator) -> None:
    """Weights in proportion to the gaps under the start, with the sum of the start.

    The gap of a model is that of the splits of which it is the best source. Raises `ConfigError` where the numbers are
    not the weights of models.
    """
    marks = task.space.marks
    if any(len(mark.place) != 3 or mark.place[0] != "models" or mark.place[2] != "weight" for mark in marks):
        raise ConfigError(
            Problem("gap finds weights of models alone, and other numbers are left open", "tune.search.method")
        )
    first = task.measure(evaluator, task.space.start)
    gaps = task.goal.gaps(first.losses)
    best = {split: min(task.goal.sources, key=lambda model: task.goal.sources[model][split]) for split in gaps}
    names = list(task.goal.sources)
    shares = [sum(max(0.0, gap) for split, gap in gaps.items() if best[split] == names[int(m.place[1])]) for m in marks]
    if sum(shares) <= 0:
        return
    total = sum(mark.start for mark in marks)
    weights = [
        float(np.clip(total * share / sum(shares), m.low, m.high)) for share, m in zip(shares, marks, strict=True)
    ]
    task.measure(evaluator, [weights[c.mark] for c in task.space.coordinates])


def _row(number: int, vector: Sequence[float], losses: dict[str, float], seconds: float) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": TRIAL, "number": number, "vector": list(vector)}
    return row | {"losses": losses, "seconds": round(seconds, 3)}
