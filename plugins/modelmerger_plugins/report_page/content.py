"""What the page says, in the order in which it says it: the manifest and the report, sorted for a template."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen
from modelmerger import Finding, Sample, ValidationReport
from modelmerger.values.findings import Better
from modelmerger.values.weights import shown_weight

NONE = "no label"


@frozen
class Source:
    """A model that was merged. role: its weight, or that it is the base."""

    name: str
    path: str
    revision: str
    weight: str
    role: str


@frozen
class Cell:
    """A number of a model, as text; empty where it was not measured. best: no other model of the row is better, and one is worse."""

    text: str
    best: bool = False


@frozen
class Row:
    """A metric; `cells` by model in order. verdict: the merged model beside its sources, in words. parts: the same by variety."""

    name: str
    unit: str
    better: Better | None
    cells: Sequence[Cell | None]
    verdict: str
    parts: Sequence["Row"] = ()


@frozen
class Limit:
    """A threshold of the merged model."""

    metric: str
    value: str
    sign: str
    threshold: str
    crossed: bool
    reason: str


@frozen
class Confusion:
    """In which variety a model answered: counts, a row a variety of prompts, and the share of the row from 0 to 4."""

    model: str
    answered: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, int, bool]]]]
    right: int
    total: int


@frozen
class Asked:
    """A prompt and the answers to it, the merged model's first."""

    prompt: str
    label: str
    answers: Sequence[Sample]


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


def sources_of(manifest: Mapping[str, Any]) -> list[Source]:
    """The models in the order of the config, then the base model."""
    models = manifest["config"]["models"]
    found = []
    for place, source in enumerate(manifest["sources"]):
        given = models[place] if place < len(models) else None
        weight, role = "", "base"
        if given is not None:
            weight = shown_weight(_as_weight(given.get("weight", 1.0)))
            role = "subtracted" if given.get("operation") == "subtract" else ""
        found.append(Source(source["name"], source["path"], source.get("revision", ""), weight, role))
    return found


def _as_weight(given: Any) -> Any:
    """Weights as plain data have lists where the core has tuples."""
    if isinstance(given, Mapping):
        return {str(key): _as_weight(value) for key, value in given.items()}
    return tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else given


def models_of(report: ValidationReport) -> list[str]:
    """The merged model, then those that it was compared with."""
    return list(dict.fromkeys([*(f.model for f in report.findings), *(s.model for s in report.samples)]))


def metrics(report: ValidationReport) -> list[Row]:
    """A row a metric, with those of its varieties where it was taken for each."""
    models = models_of(report)
    found = []
    for metric in dict.fromkeys(finding.metric for finding in report.findings):
        mine = [finding for finding in report.findings if finding.metric == metric]
        decimals = decimals_of([finding.value for finding in mine])
        varieties = dict.fromkeys(finding.label for finding in mine if finding.label)
        parts = [_row(v, [f for f in mine if f.label == v], models, decimals) for v in varieties]
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


def confusions(report: ValidationReport) -> list[Confusion]:
    """One a model, the merged model's first; none where no prompt has a variety, or no answer was put into one."""
    found = []
    for model in models_of(report):
        samples = [sample for sample in report.samples if sample.model == model and sample.label]
        counts = Counter((sample.label, sample.answered_label or NONE) for sample in samples)
        if not any(sample.answered_label for sample in samples):
            continue
        asked = list(dict.fromkeys(sample.label for sample in samples))
        others = sorted({answered for _, answered in counts} - {*asked, NONE})
        columns = [*asked, *others, *([NONE] if any(answered == NONE for _, answered in counts) else [])]
        rows = []
        for one in asked:
            total = sum(counts[one, column] for column in columns)
            shades = [-(-4 * counts[one, column] // total) for column in columns]
            marks = [column == one for column in columns]
            rows.append((one, list(zip((counts[one, c] for c in columns), shades, marks, strict=True))))
        right = sum(counts[one, one] for one in asked)
        found.append(Confusion(model, columns, rows, right, len(samples)))
    return found


def asked(report: ValidationReport) -> list[Asked]:
    """The prompts in order, each with its answers."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in report.samples:
        groups.setdefault((sample.prompt, sample.label), []).append(sample)
    order = {model: place for place, model in enumerate(models_of(report))}
    return [Asked(*key, sorted(group, key=lambda s: order[s.model])) for key, group in groups.items()]


def evidence(report: ValidationReport) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """On what each number rests: metric → (model, variety, evidence)."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for f in report.findings:
        found.setdefault(f.metric, []).append((f.model, f.label, f.evidence))
    return list(found.items())
