"""Searches by a measure of whole models: a validator's metric, or a function of the user's."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelmerger import ConfigError, Problem

from modelmerger_plugins.tune.distance import distance_of
from modelmerger_plugins.tune.evaluating import tokenizer_of
from modelmerger_plugins.tune.live.black_box import by_trials
from modelmerger_plugins.tune.live.merging import InMemory
from modelmerger_plugins.tune.measured import Goal, Lines
from modelmerger_plugins.tune.opened import Opened
from modelmerger_plugins.tune.report import Judged, TuneReport
from modelmerger_plugins.tune.result import rounded, write
from modelmerger_plugins.tune.searching import TRIAL, Progress, Task
from modelmerger_plugins.tune.section import Objective
from modelmerger_plugins.tune.study import Study
from modelmerger_plugins.tune.texts import Lines as Written
from modelmerger_plugins.tune.texts import Texts
from modelmerger_plugins.tune.trials import Trial, best_of

Measure = Callable[[Sequence[float], Written, str], float]
"""A vector of numbers, lines and their part → a number, the smaller the better."""
_WORDS = 4
"""Words of a line that are a prompt for the rest, where the config gives no prompts."""


def searched_whole(
    opened: Opened, texts: Texts, study: Study, objective: Callable[[Any, Any], float] | None, progress: Progress
) -> TuneReport:
    """What a search finds by a measure of whole models. Raises `ConfigError` for what only losses can say."""
    tune = opened.read.tune
    method, name, measure = measure_of(opened, objective, study.path.parent)
    plain = Objective(metric=name, relative=False)
    goal = Goal(plain, (), {}, Lines({}, {}))
    task = Task(opened.space, goal, tune.search, study, progress, distance_of(opened))

    def measured(vector: Sequence[float], part: str, lines: Written) -> float:
        row = study.found(kind=TRIAL, part=part, number=len(task.trials))
        if row is None or row["vector"] != list(vector):
            started = time.monotonic()
            value = measure(vector, lines, part)
            row = {"kind": TRIAL, "part": part, "number": len(task.trials), "vector": list(vector)}
            row |= {"losses": {name: value}, "seconds": round(time.monotonic() - started, 3)}
            study.add(row)
        return float(row["losses"][name])

    interrupted = False
    try:
        by_trials(task, method, lambda vector: task.add(vector, {name: measured(vector, "tune", texts.tune)}, 0.0))
    except KeyboardInterrupt as signal:
        if type(signal) is not KeyboardInterrupt or not task.trials:  # SIGTERM ends the program
            raise
        interrupted = True
    best = best_of(task.trials)
    judged = [
        Judged(who, {name: value}, {}, value)
        for who, vector in (("start", opened.space.start), ("tuned", best.vector))
        for value in [measure(vector, texts.test, "test")]
    ]
    return _report(opened, texts, study, task, method, best, judged, interrupted=interrupted)


def measure_of(opened: Opened, objective: Callable[[Any, Any], float] | None, folder: Path) -> tuple[str, str, Measure]:
    """The method, what is measured, and how. folder: for lines that a validator reads. Raises `ConfigError`."""
    tune = opened.read.tune
    method = "tpe" if tune.search.method == "auto" else tune.search.method
    if method not in ("tpe", "cma"):
        message = f"'{method}' follows losses, and another measure is asked for. Use tpe or cma"
        raise ConfigError(Problem(message, "tune.search.method"))
    if tune.constraints:
        raise ConfigError(
            Problem("compare losses, and another measure is made small. Leave them out", "tune.constraints")
        )
    name = "objective" if objective is not None else tune.goal.metric
    return method, name, _by_function(opened, objective) if objective is not None else _by_metric(opened, name, folder)


def _report(
    opened: Opened,
    texts: Texts,
    study: Study,
    task: Task,
    method: str,
    best: Trial,
    judged: Sequence[Judged],
    *,
    interrupted: bool,
) -> TuneReport:
    return TuneReport(
        method=method,
        metric=task.goal.objective.metric,
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
        interrupted=interrupted,
    )


def _by_function(opened: Opened, objective: Callable[[Any, Any], float]) -> Measure:
    models, tokenizer = InMemory(opened), tokenizer_of(opened)
    return lambda vector, _, __: float(objective(models.at(vector), tokenizer))


def _by_metric(opened: Opened, metric: str, folder: Path) -> Measure:
    """A validator's metric on the lines at hand, the other way round where more is better. Raises `ConfigError`."""
    asked: Mapping[str, Any] = opened.read.given.get("validation") or {}
    named = {"metrics": asked["metrics"]} if asked.get("metrics") else {}

    def measure(vector: Sequence[float], lines: Written, part: str) -> float:
        rows = [{"text": text, "dialect": split} for split, own in lines.items() for text in own]
        name = f"{part}.jsonl"
        write(folder, name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        prompts = {split: [" ".join(text.split()[:_WORDS]) for text in own[:8]] for split, own in lines.items()}
        given = {"test_prompts": prompts, **asked, "dataset": str(folder / name), "run_tests": True, **named}
        models = InMemory(opened, {key: value for key, value in given.items() if key != "thresholds"})
        models.at(vector)
        report = models.merger.validation_report
        findings = [one for one in report.findings if one.metric == metric] if report is not None else []
        if not findings or findings[0].value is None:
            known = sorted({one.metric for one in report.findings}) if report is not None else []
            message = f"'{metric}' was not measured. Name loss, bits_per_byte, or one of {', '.join(known)}"
            raise ConfigError(Problem(message, "tune.objective"))
        sign = -1.0 if findings[0].better == "higher" else 1.0
        return sign * float(findings[0].value)

    return measure
