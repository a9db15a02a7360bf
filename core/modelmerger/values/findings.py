"""What a validation found: numbers, answers to prompts, and which thresholds were crossed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from attrs import asdict, evolve, field, frozen

from modelmerger.values.text import LINE_LIMIT, amount, html_table, isolated, shown

MOST_EXAMPLES = 10
"""Answers that a report shows as text."""

Better = Literal["lower", "higher"]
"""Which way a metric is better. A threshold is the worst value that is still acceptable."""


@frozen(kw_only=True)
class Finding:
    """One number about one model."""

    metric: str
    """One of those that the validator declares."""
    value: float | None
    """None where it could not be measured."""
    evidence: str
    """What it was measured on, and how, for people; where there is no value, why."""
    unit: str = ""
    """Of the value, in words: `per token`."""
    label: str = ""
    """The label of the texts or prompts that it is about; empty: all of them."""
    model: str = ""
    """The name of the model. The core fills it in."""
    better: Better | None = None
    """As the validator declares it. The core fills it in."""
    threshold: float | None = None
    """The worst acceptable value, where the config gives one. The core fills it in."""
    crossed: bool = False
    """Whether the value is worse than the threshold, or missing where there is one. The core fills it in."""


@frozen(kw_only=True)
class Sample:
    """What a model answered to a prompt."""

    prompt: str
    """As the config or a plugin gives it."""
    answer: str
    """The continuation, without special tokens."""
    label: str = ""
    """The label of the prompt, where it is known."""
    answered_label: str = ""
    """The label of the answer, by the installed plugin that scores labels; empty where it gives none."""
    model: str = ""
    """The name of the model."""


@frozen(kw_only=True, repr=False)
class ValidationReport:
    """What was found about the merged model, and about its sources where they were compared."""

    directory: str
    """Where the merged model is."""
    validators: Mapping[str, str]
    """The validators that ran: name → distribution and version."""
    settings: Mapping[str, Any]
    """What was asked for, defaults filled in, as plain data."""
    findings: Sequence[Finding]
    """Those of the merged model come first."""
    samples: Sequence[Sample] = field(repr=False)
    """Those of the merged model come first. Empty where no validator wanted any and the config gave no prompts."""

    @property
    def metrics(self) -> dict[str, float | None]:
        """Metric → value of the merged model over everything; the parts are in `findings`."""
        return {f.metric: f.value for f in self.findings if f.model == self._merged and not f.label}

    @property
    def _merged(self) -> str:
        """The name of the merged model, which is looked at first."""
        return self.findings[0].model if self.findings else ""

    @property
    def crossings(self) -> list[Finding]:
        """The findings whose threshold is crossed, or whose number could not be had though a threshold wants it."""
        return [finding for finding in self.findings if finding.crossed]

    @property
    def has_thresholds(self) -> bool:
        """Whether any threshold was set, so that there is something to pass."""
        return any(finding.threshold is not None for finding in self.findings)

    @property
    def passed(self) -> bool:
        """Whether no threshold is crossed, which says nothing where none was set."""
        return not self.crossings

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data: what `validation.json` holds and `--json` prints.

        `passed` is None where no threshold was set.
        """
        return {
            "schema": 1,
            "directory": self.directory,
            "passed": self.passed if self.has_thresholds else None,
            "validators": dict(self.validators),
            "settings": dict(self.settings),
            "metrics": self.metrics,
            "findings": [asdict(finding) for finding in self.findings],
            "samples": [asdict(sample) for sample in self.samples],
        }

    @property
    def verdict(self) -> str:
        """`passed`, `no threshold set`, or which thresholds are crossed."""
        if self.passed:
            return "passed" if self.has_thresholds else "no threshold set"
        return f"{len(self.crossings)} crossed: " + ", ".join(map(crossing, self.crossings))

    def __repr__(self) -> str:
        numbers = ", ".join(f"{shown(n)} {'–' if v is None else f'{v:.4g}'}" for n, v in self.metrics.items())
        return f"<{type(self).__name__} of {shown(self.directory)}: {numbers or 'nothing measured'}; {self.verdict}>"

    def _repr_html_(self) -> str:
        head, *rows = self.rows()
        return html_table(f"Validation: {self.verdict}", rows, head)

    def rows(self) -> list[list[str]]:
        """Headings, then a row for each metric and label, with a column for each model; `–`: not measured."""
        models = list(dict.fromkeys(finding.model for finding in self.findings))
        cells: dict[tuple[str, str], dict[str, str]] = {}
        units: dict[tuple[str, str], str] = {}
        for f in self.findings:
            key = f.metric, f.label
            cells.setdefault(key, {})[f.model] = "–" if f.value is None else f"{f.value:.4g}{' ✗' if f.crossed else ''}"
            units[key] = units.get(key) or f.unit
        metrics = list(dict.fromkeys(metric for metric, _ in cells))
        body = [
            [shown(metric), shown(label or "all"), *(row.get(m, "") for m in models), shown(units[metric, label])]
            for (metric, label), row in sorted(cells.items(), key=lambda item: metrics.index(item[0][0]))
        ]
        return [["metric", "label", *map(shown, models), "unit"], *body]

    def notes(self) -> list[str]:
        """What the merged model's numbers were measured on, and why any model's are missing: each said once."""
        about: dict[tuple[bool, str], list[Finding]] = {}
        for finding in self.findings:
            if finding.value is None or finding.model == self._merged:
                about.setdefault((finding.value is None, finding.evidence), []).append(finding)
        models = len({finding.model for finding in self.findings})
        return [
            f"{_about(group, models if unmeasured else 1)}: "
            f"{'not measured: ' if unmeasured else ''}{shown(evidence, 600)}"
            for (unmeasured, evidence), group in about.items()
        ]

    def examples(self, most: int) -> list[Sample]:
        """Some of the merged model's answers: the first to each label, then the second, and so on."""
        own = [sample for sample in self.samples if sample.model == (self._merged or sample.model)]
        turns = Counter[str]()
        ranked = []
        for sample in own:
            ranked.append((turns[sample.label], sample))
            turns[sample.label] += 1
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
        why = shown(finding.evidence.rstrip("."), LINE_LIMIT)
        return f"{shown(finding.metric)} could not be measured ({why}), and its threshold is {finding.threshold:g}"
    return f"{shown(finding.metric)} is {finding.value:.4g}, worse than {finding.threshold:g}"


def _about(findings: Sequence[Finding], models: int = 1) -> str:
    """`perplexity, bits_per_byte of chat in gulf`; without the models where they are all of them."""
    metrics, names, labels = (
        list(dict.fromkeys(filter(None, (getattr(f, part) for f in findings)))) for part in ("metric", "model", "label")
    )
    of = f" of {', '.join(names)}" if len(names) < models else ""
    return shown(f"{', '.join(metrics)}{of}{' in ' + ', '.join(labels) if labels else ''}")


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()


def _sample(sample: Sample) -> str:
    """Prompt and answer may run from right to left: each is isolated, so that neither reorders the rest of the line."""
    asked = f" ({shown(sample.label)})" if sample.label else ""
    answered = f" ({shown(sample.answered_label)})" if sample.answered_label else ""
    return f"  {shown(sample.model)}{asked}: {isolated(sample.prompt)} → {isolated(sample.answer.strip())}{answered}"
