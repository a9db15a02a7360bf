"""Config documents: YAML and JSON files from anywhere, read strictly and within fixed limits.

What comes out holds only dicts with text keys, lists, str, int, float, bool and None. Refused are more than 1 MiB, 50
levels of nesting, or 100,000 keys and values (what an alias stands for counts whenever it is used); keys given twice;
NaN, infinities, numbers past 64 bits; what is not UTF-8, control characters, lone surrogates; and in YAML tags,
directives, further documents, and unquoted keys that some reader would not take for a text (`1`, `null`, `on`).

YAML is read by the core schema of YAML 1.2: `yes`, `no`, dates and `1:30` are texts, `1e-8` is a number. Octal numbers
are texts too, since YAML 1.1 and 1.2 disagree about them.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from modelmerger.config.documents.contents import Contents, forbidden_in
from modelmerger.inputs.regular_files import read_small
from modelmerger.inputs.strict_json import decode_json
from modelmerger.values.errors import MOST_SHOWN, ConfigError, MergeError, Problem

MAX_BYTES = 1024 * 1024
MAX_DIGITS = 40
"""Characters around a mistake in JSON among which a number is looked for."""
_ENDS = r"[\s\[\]{}:\"]"


class DocumentError(ConfigError):
    """A document that cannot be read, or values that cannot be written. It lists at most 20 problems."""


def read_document(path: Path) -> dict[str, Any]:
    """Read a config file: JSON if its name ends in `.json`, YAML otherwise. Raises `DocumentError`.

    Never waits for a FIFO or a device, and never reads more than 1 MiB.
    """
    return parse_named(read_bytes(path), path)


def parse_named(content: bytes, path: Path) -> dict[str, Any]:
    """Parse the content of a config file. Raises `DocumentError`."""
    return parse_document(content, source=str(path), format="json" if path.suffix.lower() == ".json" else "yaml")


def read_bytes(path: Path) -> bytes:
    """The content of a config file. Raises `DocumentError`."""
    with _refusing(str(path)):
        if not os.path.exists(path):
            raise ConfigError("the file does not exist. Check the path.")
        if os.path.isdir(path):
            raise ConfigError("is a directory, and a config is a file in YAML or JSON. Give that.")
        return read_small(Path(os.path.realpath(path)), MAX_BYTES)


def decode_document(content: bytes, *, source: str) -> str:
    """The text of a document in any format. Raises `DocumentError` for what is not UTF-8, and control characters."""
    with _refusing(source):
        return _decode(content)


def plain_document(value: Any) -> dict[str, Any]:
    """A mapping that did not come from a text of ours, held to what documents may hold. Raises `DocumentError`."""
    with _refusing("") as contents:
        plain = contents.copy(value)
        if not isinstance(plain, dict):
            raise ConfigError("the config must be a mapping of keys to values.")
    return plain


def parse_document(text: bytes | str, *, source: str, format: Literal["yaml", "json"]) -> dict[str, Any]:
    """Parse a document; `source` names it in errors.

    Raises `DocumentError` with a syntax error alone, or with everything else that is wrong.
    """
    with _refusing(source) as contents:
        decoded = _decode(text)
        if format == "json":
            document = contents.copy(_read_json(decoded, source))
        else:
            from modelmerger.config.documents.yaml_text import read_yaml

            document = read_yaml(decoded, contents)
        if not isinstance(document, dict):
            raise ConfigError("the document must be a mapping of keys to values ('key: value').")
    return document


def _read_json(text: str, source: str) -> Any:
    try:
        return decode_json(text, source)
    except json.JSONDecodeError as error:
        from modelmerger.config.documents.written_numbers import written_plainly

        place = f"line {error.lineno}, column {error.colno}"
        remedy = written_plainly(_around(text, error.pos)) or "Correct it there or just before"
        raise ConfigError(f"{place}: this is not JSON ({error.msg}). {remedy}.") from None
    except ValueError:
        raise ConfigError("a number does not fit into 64 bits. Give another one.") from None


def _around(text: str, position: int) -> str:
    """What stands around a place, up to blanks, brackets, colons and quotes; empty where nothing stands behind it."""
    before = re.split(_ENDS, text[max(0, position - MAX_DIGITS) : position])[-1]
    behind = re.split(_ENDS, text[position : position + MAX_DIGITS])[0].rstrip(",")
    return before + behind if behind else ""


def dump_yaml(data: Mapping[str, Any]) -> str:
    """YAML that `parse_document` reads back as the same values: keys in their order, letters of all scripts kept.

    Takes mappings with text keys, lists, tuples (read back as lists), str, int, float, bool and None. Anything else,
    and what no document may hold (NaN, control characters, more than 1 MiB, …), raises `DocumentError` naming the key.
    """
    from modelmerger.config.documents.yaml_text import write_yaml

    with _refusing("") as contents:
        plain = contents.copy(data)
    with _refusing(""):
        return _decode(write_yaml(plain))


@contextmanager
def _refusing(source: str) -> Iterator[Contents]:
    """Raises what is wrong with the contents as one error."""
    contents = Contents()
    try:
        yield contents
    except MergeError as error:
        contents.problems |= dict.fromkeys(problem.message for problem in error.problems)
    if problems := list(contents.problems):
        refused = DocumentError(*(Problem(problem, source) for problem in problems[:MOST_SHOWN]))
        refused.omitted = len(problems[MOST_SHOWN:])
        raise refused


def _decode(text: bytes | str) -> str:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the document has {len(data):,} bytes, {MAX_BYTES:,} are allowed. Make it smaller.")
    decoded = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")  # what is no UTF-8 becomes surrogates
    if found := forbidden_in(decoded):
        line, column = decoded.count("\n", 0, at := found.start()) + 1, at - decoded.rfind("\n", 0, at)
        raise ConfigError(f"line {line}, column {column}: this is not UTF-8, or a control character. Remove it.")
    return decoded
