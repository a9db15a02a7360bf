"""The study: a file beside the output with everything that a search measured, to which lines are only added."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3
from modelmerger import OutputError, Problem

FILE = "study.jsonl"
VERSION = 1


class Study:
    """Rows of plain data. What was measured already is found by its key, and not measured again."""

    def __init__(self, folder: Path, about: Mapping[str, Any], *, resume: bool) -> None:
        """about: what the rows depend on; a study about anything else is not resumed. Raises `OutputError`."""
        self.path = folder / FILE
        header = {"study": VERSION, **json.loads(json.dumps(about))}
        rows = _rows(self.path)
        if rows and not resume:
            raise _refused(self.path, "exists already. Give --resume to go on with it, or remove it")
        if rows and rows[0] != header:
            changed = [key for key in header if rows[0].get(key) != header[key]] or ["version"]
            raise _refused(
                self.path,
                f"is about something else: the {changed[0]} changed since. Remove it, or tune into another output",
            )
        self._known = {_key(row): row for row in rows[1:]}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("r+b" if rows else "wb")
            self._file.truncate(sum(len(_line(row)) for row in rows))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise _refused(self.path, f"cannot be written ({error.strerror})") from error
        if not rows:
            self._append(header)

    def found(self, **key: Any) -> dict[str, Any] | None:
        """The row of this key; None where it is not measured yet."""
        return self._known.get(_key(key))

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row, which is on the disk when this returns."""
        self._known[_key(row)] = dict(row)
        self._append(row)

    def digest(self) -> str:
        """BLAKE3 of the file."""
        return blake3(self.path.read_bytes()).hexdigest()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _append(self, row: Mapping[str, Any]) -> None:
        try:
            self._file.write(_line(row))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _refused(self.path, f"cannot be written ({error.strerror})") from error


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps({key: row[key] for key in ("kind", "part", "number", "model") if key in row}, sort_keys=True)


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a file; what follows the first line that is none, as a kill may leave it, is left out."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror})") from error
    rows: list[dict[str, Any]] = []
    for line in content.splitlines(keepends=True):
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            break
        if not isinstance(row, dict) or _line(row) != line:
            break
        rows.append(row)
    return rows


def _refused(path: Path, message: str) -> OutputError:
    return OutputError(Problem(message, str(path)))
