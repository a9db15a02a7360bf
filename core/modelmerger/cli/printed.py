"""What commands print: JSON, and the report of a validation."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelmerger.values.errors import MergeError, Problem, ThresholdError
from modelmerger.values.text import said_by, shown

if TYPE_CHECKING:
    from modelmerger.values.findings import ValidationReport

_EXACT = 2**53
"""Beyond it, a double-precision number does not hold every whole number."""


def print_json(value: Any) -> None:
    """Prints the one JSON document of a command, with escapes for what cannot be seen.

    value: plain data. A whole number beyond 2⁵³ is printed as a text. If the command fails after it, no other document
    is printed.
    """
    context = click.get_current_context(silent=True)
    state = context.find_root().obj if context is not None else None
    if isinstance(state, dict):
        state["printed"] = True
    click.echo(to_json(value))


def to_json(value: Any) -> str:
    """Indented JSON, with escapes for what cannot be seen, and where standard output cannot take every letter.

    A whole number that not every reader of JSON holds exactly, beyond 2⁵³, is a text of its digits.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = json.dumps(_exact(value), ensure_ascii=not encoding.lower().startswith("utf"), indent=1)
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def failure(error: BaseException, status: int) -> dict[str, Any]:
    """What `--json` prints of a command that fails: the exit status and the problems, as they are said on stderr."""
    problems = error.problems if isinstance(error, MergeError) else ()
    said = [{"message": str(p), "where": p.where, "tensor": p.tensor} for p in problems]
    kind = "Interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
    return {"error": {"kind": kind, "exit_status": status, "problems": said or [{"message": said_by(error)}]}}


def _exact(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _exact(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_exact, value))
    return str(value) if isinstance(value, int) and abs(value) > _EXACT else value


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
