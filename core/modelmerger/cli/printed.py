"""What commands print: JSON, and the report of a validation."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelmerger.values.errors import Problem, ThresholdError
from modelmerger.values.text import shown

if TYPE_CHECKING:
    from modelmerger.values.findings import ValidationReport


def to_json(value: Any) -> str:
    """Indented JSON, with escapes for what cannot be seen, and where standard output cannot take every letter."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = json.dumps(value, ensure_ascii=not encoding.lower().startswith("utf"), indent=1)
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def notes_as_data(notes: Sequence[Problem]) -> list[dict[str, str]]:
    """Warnings and notes for `--json`."""
    return [{"severity": note.severity, "message": str(note)} for note in notes]


def show_validation(report: "ValidationReport", printed: bool, what: str, saved: bool) -> None:
    """Prints the report, and where it is saved. Raises `ThresholdError` if a threshold is crossed.

    printed: whether the report is printed already, as JSON. what: the model, for the error. saved: whether the report
    is saved beside the model.
    """
    from modelmerger.cli.validation_table import print_report
    from modelmerger.output.manifest import read_manifest
    from modelmerger.values.findings import crossing

    if not printed:
        print_report(report)
        if saved:
            companions = read_manifest(Path(report.directory))["companions"]
            names = [name for name in companions if os.path.exists(os.path.join(report.directory, name))]
            click.echo(f"saved in {shown(report.directory)}: {', '.join(map(shown, names))}")
    if not report.passed:
        raise ThresholdError(*(Problem(f"{what}: {crossing(finding)}.") for finding in report.crossings))
