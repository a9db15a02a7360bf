"""What was measured, as the page shows it: a row for each metric, the thresholds, and what each number rests on."""

import math
from collections.abc import Mapping, Sequence

from attrs import evolve, frozen
from modelmerger import Better, Finding, ValidationReport


@frozen
class Cell:
    """A number about a model."""

    text: str
    """The number as it is shown; empty where it was not measured."""
    best: bool = False
    """Whether no other model of the row is better, and one is worse."""


@frozen
class Row:
    """A metric, or the part of one that a label gives."""

    name: str
    """The metric, or the label."""
    unit: str
    """Of the metric; empty for a part."""
    better: Better | None
    """Which way the metric is better; None for a part."""
    cells: Sequence[Cell | None]
    """By model, in the order of `models_of`; None where the model has no such number."""
    verdict: str
    """The merged model beside its sources, in words; empty where there is nothing to compare."""
    parts: Sequence["Row"] = ()
    """The same metric by label."""


@frozen
class Limit:
    """A threshold of the merged model. Numbers are as they are shown."""

    metric: str
    """The name of the metric."""
    value: str
    """What was measured; empty where nothing was."""
    sign: str
    """`at most` or `at least`."""
    threshold: str
    """The worst acceptable value."""
    crossed: bool
    """Whether the value is worse, or missing."""
    reason: str
    """Why nothing was measured, else empty."""


def models_of(report: ValidationReport) -> list[str]:
    """The merged model, then those that it was compared with."""
    return list(dict.fromkeys([*(f.model for f in report.findings), *(s.model for s in report.samples)]))


def metrics(report: ValidationReport) -> list[Row]:
    """A row for each metric, with those of its labels where it was taken for each."""
    models = models_of(report)
    found = []
    for metric in dict.fromkeys(finding.metric for finding in report.findings):
        mine = [finding for finding in report.findings if finding.metric == metric]
        decimals = decimals_of([finding.value for finding in mine])
        labels = dict.fromkeys(finding.label for finding in mine if finding.label)
        parts = [_row(label, [f for f in mine if f.label == label], models, decimals) for label in labels]
        row = _row(metric, [f for f in mine if not f.label], models, decimals)
        found.append(evolve(row, unit=mine[0].unit, better=mine[0].better, parts=parts))
    return found


def _row(name: str, findings: Sequence[Finding], models: Sequence[str], decimals: int | None) -> Row:
    values = {finding.model: finding.value for finding in findings}
    better = findings[0].better if findings else None
    known = [value for value in values.values() if value is not None]
    best = (min if better == "lower" else max)(known) if better and len(set(known)) > 1 else None
    cells = [
        Cell(number(values[model], decimals), best is not None and values[model] == best) if model in values else None
        for model in models
    ]
    return Row(name, "", None, cells, _verdict(values, models, better))


def _verdict(values: Mapping[str, float | None], models: Sequence[str], better: Better | None) -> str:
    """How the merged model does beside its sources: `better than all 3 sources`."""
    merged = values.get(models[0])
    others = [values[m] for m in models[1:] if m in values]
    known = [value for value in others if value is not None]
    if merged is None or not known or better is None:
        return ""
    sign = 1 if better == "higher" else -1
    ahead, behind = sum(sign * (merged - v) > 0 for v in known), sum(sign * (merged - v) < 0 for v in known)
    count = f"all {len(known)} sources" if len(known) > 1 else "its source"
    if not ahead and not behind:
        return f"equal to {count}"
    if ahead == len(known) or behind == len(known):
        return f"{'better' if ahead else 'worse'} than {count}"
    return f"better than {ahead} of {len(known)}" if ahead else f"worse than {behind} of {len(known)}"


def limits(report: ValidationReport) -> list[Limit]:
    """The thresholds, those that are crossed first."""
    judged = sorted((f for f in report.findings if f.threshold is not None), key=lambda f: not f.crossed)
    return [
        Limit(
            f.metric,
            number(f.value),
            {"lower": "at most", "higher": "at least", None: ""}[f.better],
            number(f.threshold),
            f.crossed,
            f.evidence if f.value is None else "",
        )
        for f in judged
    ]


def evidence(report: ValidationReport) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """What each number rests on: metric → (model, label, evidence)."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for f in report.findings:
        found.setdefault(f.metric, []).append((f.model, f.label, f.evidence))
    return list(found.items())


def number(value: float | None, decimals: int | None = None) -> str:
    """Four digits that count, or so many decimals; empty for no number."""
    if value is None:
        return ""
    text = f"{value:.4g}" if decimals is None else f"{value:,.{decimals}f}"
    return text.replace("-", "−")


def decimals_of(values: Sequence[float | None]) -> int | None:
    """How many decimals give the largest of some numbers four digits; None where they are of no common size."""
    sizes = [abs(value) for value in values if value]
    if not sizes or max(sizes) >= 1e6 or min(sizes) < 1e-3 * max(sizes):
        return None
    return min(6, max(0, 3 - math.floor(math.log10(max(sizes)))))
