"""A validation on a terminal: numbers side by side, answers, and how it was measured. In a pipe, plain text."""

import sys
from collections.abc import Sequence

from modelmerger.values.findings import MOST_EXAMPLES, Sample, ValidationReport
from modelmerger.values.text import amount, isolated, shown

NARROWEST = 80
"""Columns of the narrowest table."""


def print_report(report: ValidationReport) -> None:
    """Prints the report to stdout, as `str(report)` unless that is a terminal."""
    if not sys.stdout.isatty():
        print(report)  # noqa: T201 (what it is for)
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(NARROWEST, console.width)
    console.print(_numbers(report))
    if samples := report.examples(MOST_EXAMPLES):
        console.print(_answers(samples))
        if more := len(report.samples) - len(samples):
            console.print(f"  and {amount(more, 'more answer')} in the report", style="dim")
    for note in report.notes():
        console.print(f"  {note}", style="dim")
    console.print(f"validation of {shown(report.directory)}: {report.verdict}", style=_style(report))


def _style(report: ValidationReport) -> str:
    """Of the verdict."""
    if not report.passed:
        return "bold red"
    return "bold green" if report.has_thresholds else "bold"


def _numbers(report: ValidationReport) -> object:
    """A table with a column for each model. A number that crosses its threshold is red, and marked without colour."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headings, *rows = report.rows()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title="Validation", title_justify="left", title_style="bold")
    for number, heading in enumerate(headings):
        figures = 2 <= number < len(headings) - 1
        table.add_column(heading, justify="right" if figures else "left", no_wrap=figures or number == 0)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        cells = [Text(cell, style="bold red" if "✗" in cell else "") for cell in row]
        table.add_row(*cells, end_section=following is not None and following[0] != row[0])
    return table


def _answers(samples: Sequence[Sample]) -> object:
    """A table of prompts and answers, each isolated, so that text from right to left does not reorder the line."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), title="Answers", title_justify="left", title_style="bold", show_header=True)
    for heading in ("model", "prompt", "answer", "answer's label"):
        table.add_column(heading, overflow="fold")
    for sample in samples:
        prompt, answer = isolated(sample.prompt, 60), isolated(sample.answer.strip(), 200)
        asked = f"{prompt} ({shown(sample.label)})" if sample.label else prompt
        table.add_row(shown(sample.model), asked, answer, shown(sample.answered_label) or "–")
    return table
