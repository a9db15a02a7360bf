"""Measures of whole models: metrics of validators, or a function of the user's."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelmerger import ConfigError, Problem

from modelmerger_plugins.tune.asked import Objective
from modelmerger_plugins.tune.evaluating import tokenizer_of
from modelmerger_plugins.tune.live.benches import Losses, Vector
from modelmerger_plugins.tune.live.merging import InMemory
from modelmerger_plugins.tune.opened import Opened
from modelmerger_plugins.tune.result import write
from modelmerger_plugins.tune.texts import Lines

NAME = "objective"
"""What a function gives, which is numbered where it gives several."""
_WORDS = 4
"""Words of a line that are a prompt for the rest, where the config gives no prompts."""


def by_function(opened: Opened, objective: Objective) -> Callable[[Vector], Losses]:
    """What the function says of the merged model, by name."""
    models, tokenizer = InMemory(opened), tokenizer_of(opened)

    def measure(vector: Vector) -> Losses:
        found = objective(models.at(vector), tokenizer)
        if not isinstance(found, Sequence):
            return {NAME: float(found)}
        return {f"{NAME} {number}": float(one) for number, one in enumerate(found, 1)}

    return measure


def by_metrics(opened: Opened, metrics: Sequence[str], file: Path, lines: Lines) -> Callable[[Vector], Losses]:
    """Metrics of validators on these lines, the other way round where more is better.

    file: where the lines are written for the validators. Raises `ConfigError` where a metric is not measured.
    """
    asked: Mapping[str, Any] = opened.read.given.get("validation") or {}
    named = {"metrics": asked["metrics"]} if asked.get("metrics") else {}
    rows = [{"text": text, "dialect": split} for split, own in lines.items() for text in own]
    write(file.parent, file.name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    prompts = {split: [" ".join(text.split()[:_WORDS]) for text in own[:8]] for split, own in lines.items()}
    given = {"test_prompts": prompts, **asked, "dataset": str(file), "run_tests": True, **named}
    models = InMemory(opened, {key: value for key, value in given.items() if key != "thresholds"})

    def measure(vector: Vector) -> Losses:
        models.at(vector)
        report = models.merger.validation_report
        findings = report.findings if report is not None else []
        return {metric: _signed(findings, metric) for metric in metrics}

    return measure


def _signed(findings: Sequence[Any], metric: str) -> float:
    found = [one for one in findings if one.metric == metric]
    if not found or found[0].value is None:
        known = sorted({one.metric for one in findings})
        message = f"'{metric}' was not measured. Name loss, bits_per_byte, or one of {', '.join(known)}"
        raise ConfigError(Problem(message, "tune.objective"))
    return (-1.0 if found[0].better == "higher" else 1.0) * float(found[0].value)
