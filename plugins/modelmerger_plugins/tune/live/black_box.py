"""Searches that only try vectors: TPE and CMA-ES, as Optuna has them."""

import logging
from collections.abc import Callable, Sequence

from modelmerger import ConfigError, Problem

from modelmerger_plugins.tune.searching import Task
from modelmerger_plugins.tune.trials import Trial

MISSES = 1e3
"""What a unit of excess of a constraint costs: more than any objective gains."""


def by_trials(task: Task, method: str, measure: Callable[[Sequence[float]], Trial]) -> None:
    """Tries the start, and then as many vectors as there are steps. Raises `ConfigError` without Optuna.

    What is asked of Optuna depends on the seed and on what was measured alone, so a search that goes on asks for the
    same vectors again, and finds them in its study.
    """
    try:
        import optuna
        from optuna.samplers import CmaEsSampler, TPESampler
    except ModuleNotFoundError as error:
        message = f"'{method}' needs Optuna ({error}). Install modelmerger[tune], or use gradient or gap"
        raise ConfigError(Problem(message, "tune.search.method")) from error
    optuna.logging.set_verbosity(logging.WARNING)
    names = task.space.names()
    start = dict(zip(names, task.space.start, strict=True))
    seed = task.search.seed
    sampler = CmaEsSampler(seed=seed) if method == "cma" else TPESampler(seed=seed, multivariate=True)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(start)
    bounds = dict(zip(names, task.space.bounds, strict=True))
    for _ in range(task.search.steps + 1):
        asked = study.ask()
        vector = [asked.suggest_float(name, *bounds[name]) for name in names]
        trial = measure(vector)
        study.tell(asked, trial.cost + MISSES * trial.excess)
