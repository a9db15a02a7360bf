"""What a validation found: numbers, answers to prompts, and which thresholds were crossed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from attrs import asdict, evolve, frozen

from modelmerger.text import isolated, shown

Better = Literal["lower", "higher"]
"""Which way a metric is better. A threshold is the worst value that is still acceptable."""


@frozen(kw_only=True)
class Finding:
    """One number about one model.

    metric: one of those that the validator declares. value: None where it could not be measured; then `evidence` says why, else on what
    and how it was measured. dialect: the variety of Arabic that it is about; empty: everything. model, threshold and
    crossed are filled in by the core.
    """

    metric: str
    value: float | None
    evidence: str
    unit: str = ""
    dialect: str = ""
    model: str = ""
    threshold: float | None = None
    crossed: bool = False


@frozen(kw_only=True)
class Sample:
    """What a model answered to a prompt. dialect: of the prompt, where it is known. answered_in: of the answer, by the scorer."""

    prompt: str
    answer: str
    dialect: str = ""
    answered_in: str = ""
    model: str = ""


@frozen(kw_only=True)
class ValidationReport:
    """What was found about the merged model, and about its sources where they were compared.

    directory: of the merged model. validators: name → distribution and version. settings: what was asked for, defaults filled in.
    """

    directory: str
    validators: Mapping[str, str]
    settings: Mapping[str, Any]
    findings: Sequence[Finding]
    samples: Sequence[Sample]

    @property
    def metrics(self) -> dict[str, float | None]:
        """Metric → value of the merged model over everything; the parts are in `findings`."""
        merged = self.findings[0].model if self.findings else ""
        return {f.metric: f.value for f in self.findings if f.model == merged and not f.dialect}

    @property
    def crossings(self) -> list[Finding]:
        """The findings whose threshold is crossed, or whose number could not be had though a threshold wants it."""
        return [finding for finding in self.findings if finding.crossed]

    @property
    def passed(self) -> bool:
        """Whether no threshold is crossed."""
        return not self.crossings

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data: what `validation.json` holds and `--json` prints."""
        return {
            "schema": 1,
            "directory": self.directory,
            "passed": self.passed,
            "validators": dict(self.validators),
            "settings": dict(self.settings),
            "metrics": self.metrics,
            "findings": [asdict(finding) for finding in self.findings],
            "samples": [asdict(sample) for sample in self.samples],
        }

    def __str__(self) -> str:
        verdict = (
            "passed" if self.passed else f"{len(self.crossings)} crossed: " + ", ".join(map(crossing, self.crossings))
        )
        lines = [f"validation of {shown(self.directory)}: {verdict}", *_table(self.findings)]
        lines += [f"  {finding}" for finding in dict.fromkeys(map(_evidence, self.findings))]
        lines += [_sample(sample) for sample in self.samples]
        return "\n".join(lines)


def judged(finding: Finding, limit: float | None, better: Better) -> Finding:
    """The finding with its threshold. A number that could not be had does not hold a threshold."""
    if limit is None:
        return finding
    value = finding.value
    holds = value is not None and (value <= limit if better == "lower" else value >= limit)
    return evolve(finding, threshold=limit, crossed=not holds)


def crossing(finding: Finding) -> str:
    """`perplexity is 31.2, worse than 20`."""
    if finding.value is None:
        return (
            f"{finding.metric} could not be measured ({finding.evidence}), and its threshold is {finding.threshold:g}"
        )
    return f"{finding.metric} is {finding.value:.4g}, worse than {finding.threshold:g}"


def _table(findings: Sequence[Finding]) -> list[str]:
    """A row a metric and variety, a column a model."""
    models = list(dict.fromkeys(finding.model for finding in findings))
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for f in findings:
        row = cells.setdefault((f.metric, f.dialect or "all", f.unit), {})
        row[f.model] = "–" if f.value is None else f"{f.value:.4g}"
    rows = [["metric", "variety", *map(shown, models), "unit"]]
    rows += [
        [metric, dialect, *(row.get(m, "") for m in models), unit] for (metric, dialect, unit), row in cells.items()
    ]
    return list(_aligned(rows))


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()


def _evidence(finding: Finding) -> str:
    state = "not measured: " if finding.value is None else ""
    return f"{finding.metric}: {state}{shown(finding.evidence, 600)}"


def _sample(sample: Sample) -> str:
    """Arabic in a line of Latin text: each part is isolated, so that neither reorders the other."""
    asked = f" ({shown(sample.dialect)})" if sample.dialect else ""
    answered = f" ({shown(sample.answered_in)})" if sample.answered_in else ""
    return f"  {shown(sample.model)}{asked}: {isolated(sample.prompt)} → {isolated(sample.answer)}{answered}"
