"""Config documents: YAML and JSON files from anywhere, read strictly and within fixed limits.

What comes out holds only dicts with text keys, lists, str, int, float, bool and None, with nothing changed in silence:

- A file or text over 1 MiB, more than 50 levels of nesting or more than 100,000 keys and values are refused, as is what
  is no regular file, bytes that are no UTF-8 (a byte order mark is fine), control characters and lone surrogates.
- A key given twice, NaN, infinities, floats out of range and integers past 64 bits are refused.
- YAML is read by the core schema of YAML 1.2: `yes`, `no`, `on`, `off`, dates and `1:30` are texts, `1e-8` is a number.
  Octal numbers are texts too, since YAML 1.1 and 1.2 disagree about them. Unquoted keys that some reader of YAML would
  take for something else than a text (`1`, `null`, `on`) are refused.
- YAML's anchors, aliases and merge keys (`<<`) are read. What an alias stands for is copied, and counts as often as it
  is used. Tags, directives and more than one document in a file are refused.

Any text up to the limit is read or refused within two seconds and 200 MB.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from modelmerger.config.documents.tree import Event, Place, Tree, UnreadableError, forbidden
from modelmerger.values.text import shown

MAX_BYTES = 1024 * 1024

_BYTE_ORDER_MARK = "\ufeff"


class DocumentError(Exception):
    """A document that cannot be read, or values that cannot be written.

    `source` is the file or whatever the text came from. `problems` holds one sentence each, with line and column where
    there are any, at most 20; `omitted` counts further ones. `str()` gives one line for each problem.
    """

    def __init__(self, source: str, problems: tuple[str, ...], omitted: int = 0) -> None:
        super().__init__(source, problems, omitted)
        self.source = source
        self.problems = problems
        self.omitted = omitted

    def __str__(self) -> str:
        lines = [f"{shown(self.source, 1000)}: {problem}" for problem in self.problems]
        return "\n".join([*lines, f"… and {self.omitted} more"] if self.omitted else lines)


def read_document(path: Path) -> dict[str, Any]:
    """Read a config file: JSON if its name ends in `.json`, YAML otherwise.

    Never blocks on a FIFO or a device and never reads more than 1 MiB. Raises `DocumentError`, also for a file that is
    missing or cannot be read.
    """
    source = str(path)
    try:
        data = _read_file(path)
    except FileNotFoundError:
        raise DocumentError(source, ("the file does not exist. Check the path.",)) from None
    except IsADirectoryError:
        raise DocumentError(source, (_not_a_file("a directory"),)) from None
    except OSError as error:
        raise DocumentError(source, (f"the file cannot be read: {error.strerror}.",)) from None
    except (UnreadableError, ValueError) as error:
        raise DocumentError(source, (str(error),)) from None
    return parse_document(data, source=source, format="json" if path.suffix.lower() == ".json" else "yaml")


def parse_document(text: bytes | str, *, source: str, format: Literal["yaml", "json"]) -> dict[str, Any]:
    """Parse a document; `source` names it in errors.

    Raises `DocumentError` with every problem that was met: duplicate keys, tags and bad numbers all at once, a syntax
    error last, since nothing after it can be read.

    >>> parse_document("scaling_factor: 1e-2", source="merge.yaml", format="yaml")
    {'scaling_factor': 0.01}
    """
    return _built(_events(text, format), source)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """YAML that `parse_document` reads back as the same values: keys in their order, letters of all scripts kept.

    Takes mappings with text keys, lists, tuples (read back as lists), str, int, float, bool and None. Anything else,
    and what no document may hold (NaN, control characters, more than 1 MiB, …), raises `DocumentError` naming the key.

    >>> print(dump_yaml({"strategy": "slerp", "options": {"epsilon": 1e-8, "note": "no"}}), end="")
    strategy: slerp
    options:
      epsilon: 1.0e-08
      note: 'no'
    """
    from modelmerger.config.documents.yaml_writing import value_events, write_yaml

    source = "the values to write"
    text = write_yaml(_built(value_events(data), source))
    if len(text.encode()) > MAX_BYTES:
        raise DocumentError(source, (_too_large(len(text.encode()), "the YAML"),))
    return text


def _built(events: Iterator[Event], source: str) -> dict[str, Any]:
    tree = Tree()
    document: dict[str, Any] = {}
    try:
        document = tree.build(events)
    except UnreadableError as error:
        tree.report(str(error))
    if tree.problems:
        raise DocumentError(source, tuple(tree.problems), tree.omitted)
    return document


def _events(text: bytes | str, format: Literal["yaml", "json"]) -> Iterator[Event]:
    if format == "json":
        from modelmerger.config.documents.json_events import json_events as events
    else:
        from modelmerger.config.documents.yaml_events import yaml_events as events
    yield from events(_decode(text))


def _read_file(path: Path) -> bytes:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(_not_a_file("a pipe, a device or a socket"))
        if status.st_size > MAX_BYTES:
            raise UnreadableError(_too_large(status.st_size, "the file"))
        # The file may have grown since, and those of /proc say 0: one byte past the limit tells.
        return file.read(MAX_BYTES + 1)


def _decode(text: bytes | str) -> str:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise UnreadableError(_too_large(len(data), "the document"))
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            place = _place_after(data[: error.start].decode("utf-8").removeprefix(_BYTE_ORDER_MARK))
            byte = f"byte 0x{data[error.start]:02x} is not UTF-8 ({error.reason})"
            raise UnreadableError(f"{place}: {byte}. Save the file as UTF-8.") from None
    text = text.removeprefix(_BYTE_ORDER_MARK)
    if found := forbidden(text):
        raise UnreadableError(f"{_place_after(text[: found[0]])}: the document holds the {found[1]}. Remove it.")
    return text


def _place_after(text: str) -> Place:
    return Place(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _not_a_file(kind: str) -> str:
    return f"this is {kind}, not a regular file. Give a YAML or JSON file."


def _too_large(size: int, what: str) -> str:
    return f"{what} has {size:,} bytes, {MAX_BYTES:,} are allowed. Make it smaller."
