"""Searches that only try vectors: TPE, CMA-ES and NSGA-II, as Optuna has them.

Vectors are asked for in rounds, and all of a round before any of them is measured. Rounds are as long as the method and
the number of steps make them, so a search tries the same vectors however many of them are measured at a time.
"""

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from modelmerger import ConfigError, Problem

from modelmerger_plugins.tune.live.benches import Bench, Losses, Measure, Measured, Vector
from modelmerger_plugins.tune.searching import TRIAL, Task
from modelmerger_plugins.tune.study import Study as Rows

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

MISSES = 1e3
"""What a unit of excess of a constraint costs: more than any objective gains."""
WORST = 1e12
"""What stands for an objective that is no number."""
STARTUP = 10
"""Vectors that TPE draws at random, and after which vectors may be dropped."""
TOGETHER = 4
"""Vectors of a round of TPE behind these."""
POPULATION = (4, 50)
"""Vectors of a generation of NSGA-II, at least and at most; a fifth of the steps between them."""


def by_trials(task: Task, method: str, bench: Bench) -> None:
    """Tries the start, and then as many vectors as there are steps. Raises `ConfigError` without Optuna.

    What is asked of Optuna depends on the seed and on what was measured alone, so a search that goes on asks for the
    same vectors again, and finds them in its study.
    """
    rounds = _Rounds(task, method)
    while (left := task.search.steps + 1 - len(task.trials)) > 0:
        asked = [rounds.ask() for _ in range(min(rounds.size(len(task.trials)), left))]
        first = len(task.trials)
        known = [_known(task, number, vector) for number, (_, vector) in enumerate(asked, first)]
        new = [one for one, row in zip(asked, known, strict=True) if row is None]
        measured = bench.measure([(vector, partial(rounds.drops, trial, vector)) for trial, vector in new])
        for (trial, vector), row in zip(asked, known, strict=True):
            if row is None:
                found = next(measured)
                task.study.add(_row(len(task.trials), vector, found))
            else:
                found = _found(row)
                for part, losses in enumerate(found.parts):
                    rounds.report(trial, vector, part, losses)
            losses = rounds.estimated(len(found.parts) - 1, found.losses) if found.dropped else found.losses
            task.add(vector, dict(losses), found.seconds, dropped=found.dropped)
            if first == 0:
                rounds.start = found
        for (trial, _), done in zip(asked, task.trials[first:], strict=True):
            rounds.tell(trial, done)


def ensure(study: Rows, vector: Vector, measure: Measure) -> Measured:
    """The start, measured, or found in the study."""
    row = study.found(kind=TRIAL, number=0)
    if row is None:
        row = _row(0, vector, measure(vector, lambda _, __: False))
        study.add(row)
    return _found(row)


class _Rounds:
    """What Optuna is asked and told."""

    def __init__(self, task: Task, method: str) -> None:
        try:
            import optuna
        except ModuleNotFoundError as error:
            message = f"'{method}' needs Optuna ({error}). Install modelmerger[tune], or use gradient or gap"
            raise ConfigError(Problem(message, "tune.search.method")) from error
        optuna.logging.set_verbosity(logging.WARNING)
        self.start = Measured({}, (), dropped=False, seconds=0.0)
        self._task, self._method = task, method
        self._bounds = dict(zip(task.space.names(), task.space.bounds, strict=True))
        self._population = min(max(POPULATION[0], task.search.steps // 5), POPULATION[1])
        self._several = len(task.goals) > 1
        self._prunes = method == "tpe" and task.search.prune and not self._several
        self._study: Study = optuna.create_study(
            sampler=self._sampler(),
            pruner=optuna.pruners.MedianPruner(STARTUP),
            directions=["minimize"] * len(task.goals),
        )
        self._study.enqueue_trial(dict(zip(self._bounds, task.space.start, strict=True)))

    def _sampler(self) -> "BaseSampler":
        from optuna.samplers import CmaEsSampler, NSGAIISampler, TPESampler

        seed = self._task.search.seed
        if self._method == "cma":
            return CmaEsSampler(seed=seed)
        if self._method == "nsga2":
            return NSGAIISampler(seed=seed, population_size=self._population)
        return TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTUP)

    def size(self, done: int) -> int:
        """How many vectors the next round has: the start alone, then whatever Optuna finds without looking at results.

        done: how many there are.
        """
        if not done:
            return 1
        if self._method == "nsga2":
            return self._population - done % self._population
        if self._method == "cma":
            return 4 + int(3 * math.log(len(self._bounds)))  # as CMA-ES has it
        return STARTUP - done if done < STARTUP else TOGETHER

    def ask(self) -> "tuple[Trial, list[float]]":
        """The next vector."""
        trial = self._study.ask()
        return trial, [trial.suggest_float(name, *bounds) for name, bounds in self._bounds.items()]

    def estimated(self, part: int, losses: Losses) -> dict[str, float]:
        """Losses on all lines, where some are measured: beside the start, they change as much as on these."""
        start = self.start
        return {split: start.losses[split] * loss / start.parts[part][split] for split, loss in losses.items()}

    def report(self, trial: "Trial", vector: Sequence[float], part: int, losses: Losses) -> None:
        """Tells what some of the lines say."""
        if not self._prunes or not self.start.parts:
            return
        task = self._task
        found = self.estimated(part, losses)
        cost = task.goal.value(found) + task.away(vector)
        trial.report(_finite(cost + MISSES * task.goal.excess(found)), part)

    def drops(self, trial: "Trial", vector: Sequence[float], part: int, losses: Losses) -> bool:
        """Whether some of the lines are enough."""
        self.report(trial, vector, part, losses)
        return self._prunes and bool(self.start.parts) and bool(trial.should_prune())

    def tell(self, trial: "Trial", done: Any) -> None:
        """Tells what a vector came to."""
        if done.dropped:
            from optuna.trial import TrialState

            self._study.tell(trial, state=TrialState.PRUNED)
            return
        if self._several:
            trial.set_constraint("constraints", done.excess)
            self._study.tell(trial, list(map(_finite, done.costs)))
        else:
            self._study.tell(trial, _finite(done.cost + MISSES * done.excess))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else WORST


def _known(task: Task, number: int, vector: Sequence[float]) -> dict[str, Any] | None:
    row = task.study.found(kind=TRIAL, number=number)
    return row if row is not None and row["vector"] == list(vector) else None


def _row(number: int, vector: Sequence[float], found: Measured) -> dict[str, Any]:
    row = {"kind": TRIAL, "number": number, "vector": list(vector), "losses": dict(found.losses)}
    row |= {"seconds": round(found.seconds, 3)}
    if found.parts:
        row |= {"parts": [dict(losses) for losses in found.parts], "dropped": found.dropped}
    return row


def _found(row: dict[str, Any]) -> Measured:
    parts = tuple(row.get("parts", ()))
    return Measured(row["losses"], parts, dropped=row.get("dropped", False), seconds=row["seconds"])
