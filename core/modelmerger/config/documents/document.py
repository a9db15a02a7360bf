"""Config documents: YAML and JSON files from anywhere, read strictly and within fixed limits.

What comes out holds only dicts with text keys, lists, str, int, float, bool and None, with nothing changed in silence:

- A file or text over 1 MiB, more than 50 levels of nesting or more than 100,000 keys and values are refused, as is what
  is no regular file, bytes that are no UTF-8 (a byte order mark is fine), control characters and lone surrogates.
- A key given twice, NaN, infinities, floats out of range and integers past 64 bits are refused.
- YAML is read by the core schema of YAML 1.2: `yes`, `no`, `on`, `off`, dates and `1:30` are texts, `1e-8` is a number.
  Octal numbers are texts too, since YAML 1.1 and 1.2 disagree about them. Unquoted keys that some reader of YAML would
  take for something else than a text (`1`, `null`, `on`) are refused.
- YAML's anchors, aliases and merge keys are refused, so nothing ever expands; so are all tags, directives, and more
  than one document in a file.

Any text up to the limit is read or refused within two seconds and 200 MB.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from modelmerger.config.documents.tree import Tree, UnreadableError, find_forbidden, name_character, place_of, show
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
    tree = Tree()
    try:
        decoded = _decode(text)
        if format == "json":
            from modelmerger.config.documents.json_side import fill_from_json

            fill_from_json(decoded, tree)
        else:
            from modelmerger.config.documents.yaml_side import fill_from_yaml

            fill_from_yaml(decoded, tree)
    except UnreadableError as error:
        tree.stop(error)
    return _finish(tree, source)


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
    from modelmerger.config.documents.yaml_side import write_yaml

    source = "the values to write"
    tree = Tree()
    try:
        _fill_from_value(data, "", tree)
    except UnreadableError as error:
        tree.stop(error)
    text = write_yaml(_finish(tree, source))
    if len(text.encode()) > MAX_BYTES:
        raise DocumentError(source, (_too_large(len(text.encode()), "the YAML"),))
    return text


def _finish(tree: Tree, source: str) -> dict[str, Any]:
    if tree.problems:
        raise DocumentError(source, tuple(tree.problems), tree.omitted)
    document: dict[str, Any] = tree.root
    return document


def _read_file(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe, a device or a socket"
            raise UnreadableError(f"this is {kind}, not a regular file. Give a YAML or JSON file.")
        if status.st_size > MAX_BYTES:
            raise UnreadableError(_too_large(status.st_size, "the file"))
        chunks: list[bytes] = []
        # A file may have grown since, and those of /proc say 0: one byte past the limit tells.
        wanted = MAX_BYTES + 1
        while wanted and (chunk := os.read(descriptor, wanted)):
            chunks.append(chunk)
            wanted -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def _decode(text: bytes | str) -> str:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise UnreadableError(_too_large(len(data), "the document"))
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            before = data[: error.start].decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
            place, byte = place_of(len(before), before), f"byte 0x{data[error.start]:02x}"
            raise UnreadableError(f"{place}: {byte} is not UTF-8 ({error.reason}). Save the file as UTF-8.") from None
    text = text.removeprefix(_BYTE_ORDER_MARK)
    if found := find_forbidden(text):
        place = place_of(found.start(), text)
        raise UnreadableError(f"{place}: the document holds the {name_character(found[0])}. Remove it.")
    return text


def _too_large(size: int, what: str) -> str:
    return f"{what} has {size:,} bytes, {MAX_BYTES:,} are allowed. Make it smaller."


def _fill_from_value(value: Any, path: str, tree: Tree) -> None:
    place = shown(path) or "the top level"
    # Subclasses (an enum's text, numpy.float64) become the plain type that is read back.
    if isinstance(value, Mapping):
        tree.begin({}, place)
        for key, item in value.items():
            below = f"{path}.{key}" if path else str(key)
            if isinstance(key, str):
                tree.key(str.__str__(key), shown(below))
            else:
                tree.report(place, "key {} is not a text. Give a text.", show(repr(key)))
                tree.key(None, shown(below))
            _fill_from_value(item, below, tree)
        tree.end()
    elif isinstance(value, list | tuple):
        tree.begin([], place)
        for index, item in enumerate(value):
            _fill_from_value(item, f"{path}[{index}]", tree)
        tree.end()
    elif value is None or isinstance(value, bool):
        tree.scalar(value, place, repr(value))
    elif isinstance(value, str):
        tree.scalar(str.__str__(value), place, value)
    elif isinstance(value, int):
        tree.scalar(int(value), place, hex(value))
    elif isinstance(value, float):
        tree.scalar(float(value), place, repr(float(value)))
    else:
        kind = show(type(value).__name__)
        tree.report(place, "a {} cannot be written to YAML. Give texts, numbers, lists or mappings.", kind)
        tree.scalar(None, place, "")
