"""What a validation found: numbers, answers to prompts, and which thresholds were crossed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from attrs import asdict, evolve, frozen

from modelmerger.values.text import amount, isolated, shown

MOST_EXAMPLES = 10

Better = Literal["lower", "higher"]
"""Which way a metric is better. A threshold is the worst value that is still acceptable."""


@frozen(kw_only=True)
class Finding:
    """One number about one model.

    metric: one of those that the validator declares. value: None where it could not be measured; then `evidence` says why, else on what
    and how it was measured. dialect: the variety of Arabic that it is about; empty: everything. model, better (as the validator
    declares it), threshold and crossed are filled in by the core.
    """

    metric: str
    value: float | None
    evidence: str
    unit: str = ""
    dialect: str = ""
    model: str = ""
    better: Better | None = None
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
        return {f.metric: f.value for f in self.findings if f.model == self._merged and not f.dialect}

    @property
    def _merged(self) -> str:
        """The name of the merged model, which is looked at first."""
        return self.findings[0].model if self.findings else ""

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

    @property
    def verdict(self) -> str:
        """`passed`, or which thresholds are crossed."""
        if self.passed:
            return "passed"
        return f"{len(self.crossings)} crossed: " + ", ".join(map(crossing, self.crossings))

    def rows(self) -> list[list[str]]:
        """Headings, then a row a metric and variety with a column a model, as they are shown; `–`: not measured."""
        models = list(dict.fromkeys(finding.model for finding in self.findings))
        cells: dict[tuple[str, str], dict[str, str]] = {}
        units: dict[tuple[str, str], str] = {}
        for f in self.findings:
            key = f.metric, f.dialect
            cells.setdefault(key, {})[f.model] = "–" if f.value is None else f"{f.value:.4g}{' ✗' if f.crossed else ''}"
            units[key] = units.get(key) or f.unit
        metrics = list(dict.fromkeys(metric for metric, _ in cells))
        body = [
            [shown(metric), shown(dialect or "all"), *(row.get(m, "") for m in models), shown(units[metric, dialect])]
            for (metric, dialect), row in sorted(cells.items(), key=lambda item: metrics.index(item[0][0]))
        ]
        return [["metric", "variety", *map(shown, models), "unit"], *body]

    def notes(self) -> list[str]:
        """On what and how the merged model's numbers were measured, and why some of any model were not: each said once."""
        about: dict[tuple[bool, str], list[Finding]] = {}
        for finding in self.findings:
            if finding.value is None or finding.model == self._merged:
                about.setdefault((finding.value is None, finding.evidence), []).append(finding)
        models = len({finding.model for finding in self.findings})
        return [
            f"{_about(group, models if unmeasured else 1)}: {'not measured: ' if unmeasured else ''}{shown(evidence, 600)}"
            for (unmeasured, evidence), group in about.items()
        ]

    def examples(self, most: int) -> list[Sample]:
        """Some of the merged model's answers: the first to each dialect, then the second, and so on."""
        own = [sample for sample in self.samples if sample.model == (self._merged or sample.model)]
        turns = Counter[str]()
        ranked = []
        for sample in own:
            ranked.append((turns[sample.dialect], sample))
            turns[sample.dialect] += 1
        return [sample for _, sample in sorted(ranked, key=lambda turn: turn[0])][:most]

    def __str__(self) -> str:
        lines = [f"validation of {shown(self.directory)}: {self.verdict}", *_aligned(self.rows())]
        lines += [f"  {note}" for note in self.notes()]
        chosen = self.examples(MOST_EXAMPLES)
        lines += [_sample(sample) for sample in chosen]
        if more := len(self.samples) - len(chosen):
            lines.append(f"  and {amount(more, 'more answer')} in the report")
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
        return f"{finding.metric} could not be measured ({finding.evidence.rstrip('.')}), and its threshold is {finding.threshold:g}"
    return f"{finding.metric} is {finding.value:.4g}, worse than {finding.threshold:g}"


def _about(findings: Sequence[Finding], models: int = 1) -> str:
    """`perplexity, bits_per_byte of chat in gulf`; without the models where they are all of them."""
    metrics, names, dialects = (
        list(dict.fromkeys(filter(None, (getattr(f, part) for f in findings))))
        for part in ("metric", "model", "dialect")
    )
    of = f" of {', '.join(names)}" if len(names) < models else ""
    return shown(f"{', '.join(metrics)}{of}{' in ' + ', '.join(dialects) if dialects else ''}")


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()


def _sample(sample: Sample) -> str:
    """Arabic in a line of Latin text: each part is isolated, so that neither reorders the other."""
    asked = f" ({shown(sample.dialect)})" if sample.dialect else ""
    answered = f" ({shown(sample.answered_in)})" if sample.answered_in else ""
    return f"  {shown(sample.model)}{asked}: {isolated(sample.prompt)} → {isolated(sample.answer.strip())}{answered}"
