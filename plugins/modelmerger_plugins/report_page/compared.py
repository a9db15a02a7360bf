"""Several merges by what their validations found: which can be compared, and which is best at what."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import evolve, frozen
from modelmerger import ConfigError, ValidationReport, shown

from modelmerger_plugins.report_page.measured import Cell, Row, metrics
from modelmerger_plugins.report_page.validated import ASKED, Validated, names_of, read_validated

BESIDE_THE_POINT = ("run_tests", "metrics", "thresholds", "compare_with_sources", "test_batch_size")
"""Settings that move no number."""
_PROMPTS = ("test_prompts", ASKED)
_COUNT = re.compile(r"([\d,]+) (text|byte|prompt)s?\b")


@frozen
class Comparison:
    """Merges side by side."""

    merges: Sequence[Validated]
    """Those that were measured alike."""
    rows: Sequence[Row]
    """A row for each metric, those of its labels within it, with a cell for each merge."""
    report: ValidationReport
    """What was found of all of them."""
    others: Sequence[tuple[str, str]]
    """Those that cannot be compared with these: name, and why."""
    notes: Sequence[str]
    """What else is to be known."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data: what `--json` prints."""
        values = {(f.metric, f.label, f.model): f.value for f in self.report.findings}
        names = [merge.name for merge in self.merges]
        rows = [one for row in self.rows for one in ((row, "", row), *((row, part.name, part) for part in row.parts))]
        return {
            "merges": [{"name": m.name, "directory": m.directory, "strategy": m.strategy} for m in self.merges],
            "metrics": [
                {
                    "metric": row.name,
                    "label": label,
                    "unit": row.unit,
                    "better": row.better,
                    "values": {name: values.get((row.name, label, name)) for name in names},
                    "best": [name for name, cell in zip(names, part.cells, strict=True) if cell and cell.best],
                }
                for row, label, part in rows
            ],
            "not_comparable": [{"name": name, "reason": reason} for name, reason in self.others],
            "notes": list(self.notes),
        }


def compare_merges(directories: Sequence[str]) -> Comparison:
    """The merges in some directories. The measure is the validation that most of them share, the first of equals.

    Raises `InputError` for a directory that holds no validation, and `ConfigError` where no two can be compared.
    """
    given = list(dict.fromkeys(directories))
    found = [read_validated(directory, name) for directory, name in zip(given, names_of(given), strict=True)]
    measure = max(found, key=lambda one: sum(not _difference(one, other) for other in found))
    apart = {merge.name: _difference(measure, merge) for merge in found}
    merges = [merge for merge in found if not apart[merge.name]]
    if len(merges) < 2:
        reasons = "; ".join(f"{shown(name)}: {reason}" for name, reason in apart.items() if reason)
        raise ConfigError(f"no two of them were measured alike ({reasons or 'only one is given'})")
    together = evolve(
        measure.report, findings=[finding for merge in merges for finding in merge.report.findings], samples=[]
    )
    others = [(name, reason) for name, reason in apart.items() if reason]
    return Comparison(merges, metrics(together), together, others, list(_notes(measure, found)))


def axes_of(found: Comparison, given: str | None) -> tuple[str, str] | None:
    """The two metrics of the scatter: those that are given, or the first two that two merges have; None where there is
    no second one. Raises `ConfigError` for what is no pair of metrics.
    """
    known = [row.name for row in found.rows]
    if given is None:
        drawn = [row.name for row in found.rows if sum(cell is not None and cell.text != "" for cell in row.cells) > 1]
        return (drawn[0], drawn[1]) if len(drawn) > 1 else None
    names = [name.strip() for name in given.split(",")]
    if len(names) != 2 or names[0] == names[1]:
        example = ",".join(map(shown, known[:2]))
        raise ConfigError(f"--scatter wants two metrics, got '{shown(given)}'. For example --scatter {example}")
    for name in names:
        if name not in known:
            measured = ", ".join(map(shown, known))
            raise ConfigError(f"--scatter: no metric is named '{shown(name)}' (measured: {measured})")
    return names[0], names[1]


def lines_of(found: Comparison) -> Iterator[str]:
    """A table for a terminal, with a star at the best of each row, then what cannot be compared."""
    rows = [["metric", "label", *(shown(merge.name) for merge in found.merges), "unit"]]
    for row in found.rows:
        arrow = {"lower": " ↓", "higher": " ↑", None: ""}[row.better]
        rows.append([shown(row.name) + arrow, "all", *map(_text, row.cells), shown(row.unit)])
        rows += [["", shown(part.name), *map(_text, part.cells), ""] for part in row.parts]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
    yield "*: the best of a row"
    yield from (f"{shown(name)} cannot be compared: {shown(reason, 200)}" for name, reason in found.others)
    yield from (f"note: {note}" for note in found.notes)


def _text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return (cell.text or "–") + ("*" if cell.best else "")


def _difference(measure: Validated, other: Validated) -> str:
    """Why the numbers of two merges mean different things; empty where they mean the same."""
    ours, theirs = (
        {key: value for key, value in one.report.settings.items() if key not in BESIDE_THE_POINT}
        for one in (measure, other)
    )
    if changed := sorted(key for key in {*ours, *theirs} if key in ours and key in theirs and ours[key] != theirs[key]):
        key = next((key for key in changed if key not in _PROMPTS), None)
        if key is None:
            return "it was asked other prompts"
        return f"it was measured with {key}: {theirs[key]}, and {measure.name} with {ours[key]}"
    for name, version in measure.report.validators.items():
        if other.report.validators.get(name, version) != version:
            return f"{name} was that of {other.report.validators[name]}, and that of {measure.name} of {version}"
    mine = {(f.metric, f.label): _counts(f.evidence) for f in measure.report.findings if f.value is not None}
    for f in other.report.findings:
        counts = mine.get((f.metric, f.label))
        if f.value is not None and counts is not None and counts != _counts(f.evidence):
            return f"{f.metric} was measured on other texts ({f.evidence})"
    return ""


def _counts(evidence: str) -> list[tuple[str, str]]:
    """What the evidence counts that does not depend on a tokenizer."""
    return [(count, what) for count, what in _COUNT.findall(evidence)]


def _notes(measure: Validated, found: Sequence[Validated]) -> Iterator[str]:
    for merge in found:
        if merge.sources and measure.sources and {*merge.sources} != {*measure.sources}:
            yield f"{shown(merge.name)} and {shown(measure.name)} were made of different models"
