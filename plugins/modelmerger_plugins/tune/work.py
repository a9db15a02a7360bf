"""The work of a search from opened models to a report: sources measured, numbers found, both judged on test lines."""

from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import evolve
from modelmerger import ConfigError, Problem

from modelmerger_plugins.tune.aside import Valued, line, worth
from modelmerger_plugins.tune.asked import Asked, Preparing
from modelmerger_plugins.tune.constraints import constraints_of
from modelmerger_plugins.tune.distance import distance_of
from modelmerger_plugins.tune.evaluating import ByCoefficients, Evaluator, encoded, tokenizer_of
from modelmerger_plugins.tune.honesty import gain
from modelmerger_plugins.tune.measured import Goal, Lines, Nats, per_token
from modelmerger_plugins.tune.opened import Opened
from modelmerger_plugins.tune.report import Judged, TuneReport
from modelmerger_plugins.tune.result import rounded
from modelmerger_plugins.tune.searching import Task, by_gaps, by_gradient
from modelmerger_plugins.tune.section import LOSSES
from modelmerger_plugins.tune.study import Study
from modelmerger_plugins.tune.texts import Texts
from modelmerger_plugins.tune.trials import Trial, pareto_of, taken


def searched(opened: Opened, texts: Texts, study: Study, asked: Asked) -> TuneReport:
    """What a search finds. Raises `MergeError`."""
    tune = opened.read.tune
    if asked.objective is not None or not {goal.metric for goal in tune.goals} <= set(LOSSES):
        from modelmerger_plugins.tune.live.whole_models import searched_whole

        return searched_whole(opened, texts, study, asked)
    method, evaluator = chosen(opened, study.path.parent, asked.preparing)
    tokenizer = tokenizer_of(opened)
    lines, test = encoded(texts.tune, tokenizer), encoded(texts.test, tokenizer)
    constraints = constraints_of(tune.constraints, lines.splits, opened.models)
    goal = Goal(tune.goal, constraints, _sources(opened, evaluator, lines, study, "tune"), lines)
    others = [evolve(goal, objective=one, constraints=()) for one in tune.goals[1:]]
    away = distance_of(opened, evaluator)
    task = Task(opened.space, goal, tune.search, study, asked.progress, away, others=others)
    interrupted = False
    try:
        _search(method, task, evaluator, opened, texts, asked)
    except KeyboardInterrupt as signal:
        if type(signal) is not KeyboardInterrupt or not task.trials:  # SIGTERM ends the program
            raise
        interrupted = True
    best = taken(task.trials, asked.choose)
    judged = _judged(opened, evaluator, best, goal, test, study)
    factors, values = _aside(opened, task, evaluator, best) if not interrupted else ([], [])
    tuned = next(one for one in judged if one.name == "tuned")
    return TuneReport(
        method=method,
        metric=tune.goal.metric,
        coordinates=opened.space.names(),
        per={mark.where: per for mark, per in zip(opened.space.marks, opened.space.per, strict=True)},
        lines={split: len(own) for split, own in lines.tokens.items()},
        test_lines={split: len(own) for split, own in test.tokens.items()},
        trials=task.trials,
        best=best,
        judged=judged,
        over=tuned.value - best.value,
        line=factors,
        worth=values,
        notes=[*opened.notes, *_notes(method, task, best, asked, interrupted=interrupted)],
        folder=str(study.path.parent),
        config=rounded(opened.space.config_at(best.vector)),
        texts=texts.digests(),
        study=study.digest(),
        scale=opened.scale,
        objectives=[one.name for one in tune.goals],
        pareto=pareto_of(task.trials) if others else [],
        interrupted=interrupted,
    )


def chosen(opened: Opened, folder: Path | None = None, preparing: Preparing | None = None) -> tuple[str, Evaluator]:
    """The method, and what it asks. Raises `ConfigError` where the method does not fit the config.

    folder: of the study, where it may keep files meanwhile; None for a temporary place. preparing: told while it makes
    some of these.
    """
    method = opened.read.tune.search.method
    if len(opened.read.tune.goals) > 1:
        if method not in ("auto", "tpe", "nsga2"):
            message = f"'{method}' makes one objective small, and several are given. Use nsga2 or tpe"
            raise ConfigError(Problem(message, "tune.search.method"))
        method = "nsga2" if method == "auto" else method
    if method in ("auto", "gradient"):
        try:
            return "gradient", ByCoefficients(opened, folder, preparing)
        except ConfigError:
            if method == "gradient":
                raise
            method = "tpe"
    if method == "gap":
        try:
            return method, ByCoefficients(opened, folder, preparing)
        except ConfigError:
            pass
    from modelmerger_plugins.tune.live.evaluator import Live

    return method, Live(opened)


def _search(method: str, task: Task, evaluator: Evaluator, opened: Opened, texts: Texts, asked: Asked) -> None:
    if method == "gradient" and isinstance(evaluator, ByCoefficients):
        by_gradient(task, evaluator)
    elif method == "gap":
        by_gaps(task, evaluator)
    else:
        from modelmerger_plugins.tune.live.losses_of_lines import by_losses

        by_losses(method, task, evaluator, opened, texts, asked)


def _sources(
    opened: Opened, evaluator: Evaluator, lines: Lines, study: Study, part: str
) -> dict[str, dict[str, float]]:
    return {
        model: per_token(_nats_of_source(opened, evaluator, lines, study, part, number), lines)
        for number, model in enumerate(opened.models)
    }


def _nats_of_source(opened: Opened, evaluator: Evaluator, lines: Lines, study: Study, part: str, number: int) -> Nats:
    return _kept(study, part, opened.models[number], lambda: evaluator.source_nats(lines, number))


def _nats_at(evaluator: Evaluator, vector: Sequence[float], lines: Lines, study: Study, name: str) -> Nats:
    return _kept(study, "test", f"{name} {list(vector)}", lambda: evaluator.nats(lines, vector))


def _kept(study: Study, part: str, model: str, measure: Callable[[], Nats]) -> Nats:
    """The nats of each line, measured or found in the study."""
    import numpy as np

    row = study.found(kind="lines", part=part, model=model)
    if row is None:
        nats = measure()
        row = {"kind": "lines", "part": part, "model": model}
        row["nats"] = {split: [float(one) for one in found] for split, found in nats.items()}
        study.add(row)
    return {split: np.array(found) for split, found in row["nats"].items()}


def _judged(opened: Opened, evaluator: Evaluator, best: Trial, goal: Goal, lines: Lines, study: Study) -> list[Judged]:
    """The start, the tuned model and the sources on test lines, none of which anything was chosen by."""
    found: dict[str, Nats] = {
        model: _nats_of_source(opened, evaluator, lines, study, "test", number)
        for number, model in enumerate(opened.models)
    }
    sources = {model: per_token(nats, lines) for model, nats in found.items()}
    goal = Goal(goal.objective, (), sources, lines)
    ours = {"start": opened.space.start, "tuned": best.vector}
    nats = {name: _nats_at(evaluator, vector, lines, study, name) for name, vector in ours.items()}
    nats |= found
    seed = opened.read.tune.search.seed
    rows = []
    for name, own in nats.items():
        losses = per_token(own, lines)
        paired = gain(goal.value, nats["tuned"], own, lines, seed) if name != "tuned" else None
        rows.append(Judged(name, losses, goal.gaps(losses), goal.value(losses), paired))
    return rows


def _aside(opened: Opened, task: Task, evaluator: Evaluator, best: Trial) -> tuple[list[Valued], list[Valued]]:
    """The line through the start, where there is a base that it begins at, and the worth of groups.

    They are measured on the lines that were tuned on.
    """
    lines, start = task.goal.lines, task.space.start

    def value(name: str, measure: Callable[[], Nats]) -> float:
        row = task.study.found(kind="aside", model=name)
        if row is None:
            row = {"kind": "aside", "model": name, "losses": per_token(measure(), lines)}
            task.study.add(row)
        return task.goal.value(row["losses"])

    def stretched(factor: float) -> float:
        if factor == 1:
            return task.trials[0].value
        return value(f"{factor:g} × start", lambda: evaluator.stretched_nats(lines, start, factor))

    def at(vector: Sequence[float]) -> float:
        return value(str(list(vector)), lambda: evaluator.nats(lines, vector))

    return line(stretched) if opened.has_base else [], worth(task.space, best.vector, best.value, at)


def _notes(method: str, task: Task, best: Trial, asked: Asked, *, interrupted: bool) -> list[str]:
    notes = []
    if asked.jobs > 1 and method in ("gradient", "gap"):
        notes.append(f"jobs have no effect: {method} goes one step after the other")
    if interrupted:
        notes.append(f"the search was ended after {len(task.trials)} trials; --resume goes on with it")
    if best.excess > 0:
        notes.append(f"no numbers met all constraints; these miss them by {best.excess:.4f}, the least of all")
    at_end = [
        name
        for name, value, (low, high) in zip(task.space.names(), best.vector, task.space.bounds, strict=True)
        if value in (low, high)
    ]
    if at_end:
        more = f" and {len(at_end) - 1} others" if at_end[1:] else ""
        notes.append(f"{at_end[0]}{more} ended at the end of the range: a wider one may be better")
    return notes
