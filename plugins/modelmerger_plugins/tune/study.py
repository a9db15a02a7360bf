"""The study: a file beside the output with everything that a search measured, to which lines are only added."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3
from modelmerger import OutputError

from modelmerger_plugins.tune.study_file import StudyFile, refused

FILE = "study.jsonl"
VERSION = 1
_BEGIN = b'{"study": '
_DUE: Mapping[str, Mapping[str, str]] = {
    "trial": {"vector": "list of number", "losses": "mapping of number", "seconds": "number"},
    "lines": {"nats": "mapping of list of number"},
    "aside": {"losses": "mapping of number"},
}
"""What rows of some kinds have."""


class Study:
    """Rows of plain data. What was measured already is found by its key, and not measured again.

    While one process has a study, no other can have it.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, resume: bool) -> None:
        """about: what the rows depend on; a study about anything else is not resumed. Raises `OutputError`."""
        self.path = folder / FILE
        header = {"study": VERSION, **json.loads(json.dumps(about))}
        self._file = StudyFile(self.path)
        try:
            rows = self._found(header, resume=resume)
            self._known = {_key(row): row for row in rows[1:]}
            self._file.cut(sum(len(_line(row)) for row in rows))
            if not rows:
                self._file.append(_line(header))
        except BaseException:
            self._file.close()
            raise

    def found(self, **key: Any) -> dict[str, Any] | None:
        """The row of this key; None where it is not measured yet."""
        return self._known.get(_key(key))

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row, which is on the disk when this returns."""
        self._known[_key(row)] = dict(row)
        self._file.append(_line(row))

    def digest(self) -> str:
        """BLAKE3 of the file."""
        return blake3(self._file.read()).hexdigest()

    def close(self) -> None:
        """Closes the file, which another process may then have."""
        self._file.close()

    def _found(self, header: Mapping[str, Any], *, resume: bool) -> list[dict[str, Any]]:
        """The rows that are there, the header first. Raises `OutputError` where they are not of this study."""
        rows = _rows(self._file.read(), self.path)
        if rows and not resume:
            raise refused(self.path, "exists already. Give --resume to go on with it, or remove it")
        if rows and rows[0] != header:
            changed = [key for key in header if rows[0].get(key) != header[key]] or ["version"]
            raise refused(
                self.path,
                f"is about something else: the {changed[0]} changed since. Remove it, or tune into another output",
            )
        return rows


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps({key: row[key] for key in ("kind", "part", "number", "model") if key in row}, sort_keys=True)


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def _rows(content: bytes, path: Path) -> list[dict[str, Any]]:
    """The rows of a file, without a last line that is not whole, as a kill leaves it. Raises `OutputError`."""
    lines = content.split(b"\n")
    torn = lines.pop()
    rows = []
    for number, line in enumerate(lines, 1):
        row = _row(line + b"\n")
        if row is None or ("study" in row) != (number == 1):
            if number == 1:
                raise _foreign(path)
            raise refused(
                path, f"is damaged: line {number:,} is no row of a study. Remove it, or that line and the rest"
            )
        rows.append(row)
    if not rows and not (torn.startswith(_BEGIN) or _BEGIN.startswith(torn)):
        raise _foreign(path)
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        return row if isinstance(row, dict) and _line(row) == line and _is_sound(row) else None
    except (ValueError, RecursionError):
        return None


def _is_sound(row: Mapping[str, Any]) -> bool:
    """Whether what a row is read for is there; a header has nothing of it."""
    due = _DUE.get(row["kind"], {}) if isinstance(row.get("kind"), str) else {}
    return all(_holds(row.get(key), shape) for key, shape in due.items())


def _holds(value: Any, shape: str) -> bool:
    if shape == "number":
        return type(value) in (int, float)
    if shape.startswith("list of "):
        return isinstance(value, list) and all(_holds(one, shape[8:]) for one in value)
    return isinstance(value, dict) and all(_holds(one, shape[11:]) for one in value.values())


def _foreign(path: Path) -> OutputError:
    return refused(path, "is not the study of a search. Move it away, or tune into another output")
