"""Searches by a measure of whole models: metrics of validators, or a function of the user's."""

from collections.abc import Callable, Sequence
from pathlib import Path

from modelmerger import ConfigError, Problem

from modelmerger_plugins.tune.asked import Asked
from modelmerger_plugins.tune.asked import Objective as Function
from modelmerger_plugins.tune.distance import distance_of
from modelmerger_plugins.tune.live.benches import Losses, Vector, timed
from modelmerger_plugins.tune.live.black_box import by_trials, ensure
from modelmerger_plugins.tune.live.jobs import bench
from modelmerger_plugins.tune.live.metrics import by_function, by_metrics
from modelmerger_plugins.tune.measured import Goal, Lines
from modelmerger_plugins.tune.opened import Opened
from modelmerger_plugins.tune.report import Judged, TuneReport
from modelmerger_plugins.tune.result import rounded
from modelmerger_plugins.tune.searching import Task
from modelmerger_plugins.tune.section import LOSSES, Objective
from modelmerger_plugins.tune.study import Study
from modelmerger_plugins.tune.texts import Lines as Written
from modelmerger_plugins.tune.texts import Texts
from modelmerger_plugins.tune.trials import pareto_of, taken


def searched_whole(opened: Opened, texts: Texts, study: Study, asked: Asked) -> TuneReport:
    """What a search finds by a measure of whole models. Raises `ConfigError` for what only losses can say."""
    if asked.objective is not None and asked.jobs > 1:
        raise ConfigError("a function of this process is measured in this process alone. Leave the jobs out.")
    search, folder = opened.read.tune.search, study.path.parent
    measured = timed(measure_of(opened, asked.objective, texts.tune, folder / "tune.jsonl"))
    start = ensure(study, opened.space.start, measured)
    names = list(start.losses)
    goals = [Goal(Objective(metric=name, relative=False, take={name: 1.0}), (), {}, Lines({}, {})) for name in names]
    task = Task(opened.space, goals[0], search, study, asked.progress, distance_of(opened), others=goals[1:])
    method = method_of(opened, names)
    interrupted = False
    try:
        with bench(opened, texts, asked.jobs, measured) as at:
            by_trials(task, method, at)
    except KeyboardInterrupt as signal:
        if type(signal) is not KeyboardInterrupt or not task.trials:  # SIGTERM ends the program
            raise
        interrupted = True
    best = taken(task.trials, asked.choose)
    judge = measure_of(opened, asked.objective, texts.test, folder / "test.jsonl")
    judged = [
        Judged(who, found, {}, found[names[0]])
        for who, vector in (("start", opened.space.start), ("tuned", best.vector))
        for found in [judge(vector)]
    ]
    return TuneReport(
        method=method,
        metric=names[0],
        coordinates=opened.space.names(),
        per={mark.where: per for mark, per in zip(opened.space.marks, opened.space.per, strict=True)},
        lines={split: len(own) for split, own in texts.tune.items()},
        test_lines={split: len(own) for split, own in texts.test.items()},
        trials=task.trials,
        best=best,
        judged=judged,
        over=judged[-1].value - best.value,
        notes=list(opened.notes),
        folder=str(study.path.parent),
        config=rounded(opened.space.config_at(best.vector)),
        texts=texts.digests(),
        study=study.digest(),
        objectives=names,
        pareto=pareto_of(task.trials) if names[1:] else [],
        interrupted=interrupted,
    )


def method_of(opened: Opened, names: Sequence[str]) -> str:
    """How it is searched. names: of the objectives."""
    asked = opened.read.tune.search.method
    return asked if asked != "auto" else "nsga2" if names[1:] else "tpe"


def measure_of(opened: Opened, objective: Function | None, lines: Written, file: Path) -> Callable[[Vector], Losses]:
    """What is measured of a vector on these lines. file: where they are written for validators.

    Raises `ConfigError` for what does not go together.
    """
    tune = opened.read.tune
    method, metrics = tune.search.method, [goal.metric for goal in tune.goals]
    if method not in ("auto", "tpe", "cma", "nsga2"):
        message = f"'{method}' follows losses, and another measure is asked for. Use tpe, cma or nsga2"
        raise ConfigError(Problem(message, "tune.search.method"))
    if tune.constraints:
        raise ConfigError(
            Problem("compare losses, and another measure is made small. Leave them out", "tune.constraints")
        )
    if objective is not None:
        return by_function(opened, objective)
    if set(metrics) & set(LOSSES):
        losses, others = ([one for one in metrics if (one in LOSSES) is kind] for kind in (True, False))
        message = f"has '{losses[0]}' beside '{others[0]}': losses, or metrics of validators, such as perplexity"
        raise ConfigError(Problem(f"{message}. Leave one of the two kinds out", "tune.objective"))
    return by_metrics(opened, metrics, file, lines)
