"""JSON from files that may come from anyone: one reader, so that the same things are refused in the same words."""

import json
import re
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from modelmerger.inputs.odd_numbers import TEXT, OddNumbers
from modelmerger.values.errors import InputError, Problem

MOST_LEVELS = 100
MOST_VALUES = 5_000_000
"""Half a gigabyte once they are read, and twice as many as the tokenizer or the index of any model holds."""

_PART = rf"(?:[^\"]*+{TEXT}){{1,10000}}+|[^\"]++"
"""Some texts with what is between them, so that what is left when they are taken out never is all in memory."""


def read_json(
    content: bytes | str,
    source: str,
    *,
    depth: int = MOST_LEVELS,
    nodes: int = MOST_VALUES,
    unique: bool = True,
    infinite: Collection[str] | None = None,
) -> Any:
    """The value in a JSON document, as plain data. `source` names it in errors.

    content: UTF-8, with or without a byte order mark. depth: how many lists and objects may lie in each other. nodes:
    how many values there may be; keys do not count, and an empty list or object counts like one that holds a value.
    unique: whether a key that an object has twice is refused; otherwise the last one counts. infinite: keys that
    infinities may stand at, or in a list there: they are read as the objects that transformers writes for them,
    `{"__float__": "Infinity"}`; other infinities, NaN and numbers beyond float64 are refused with line and key. None:
    all these, which Python writes though JSON has none, are read as what they are.

    Halves of surrogate pairs are read in any case.
    Raises `InputError` for all else that is no JSON, and for what is too deep or too much.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        return decode_json(text, source, depth=depth, nodes=nodes, unique=unique, infinite=infinite)
    except ValueError as error:
        reason = f"is not sound JSON: {error}"
    # Out here, so that the error does not keep the text alive.
    raise InputError(Problem(f"{reason}.", source))


def decode_json(
    text: str,
    source: str,
    *,
    depth: int = MOST_LEVELS,
    nodes: int = MOST_VALUES,
    unique: bool = True,
    infinite: Collection[str] | None = None,
) -> Any:
    """As `read_json`, but what is no JSON raises `ValueError`: a `JSONDecodeError`, where one place is to blame."""
    if _holds_more(text, nodes):
        raise InputError(Problem(f"holds more than {nodes:,} values.", source))
    with suppress(RecursionError):
        odd = None if infinite is None else OddNumbers(infinite)
        value = _decoded(text, unique, odd)
        if not _is_deeper(value, depth, text):
            return odd.settle(value, text) if odd else value
    raise InputError(Problem(f"is nested more than {depth} levels deep.", source))


def _decoded(text: str, unique: bool, odd: OddNumbers | None) -> Any:
    decoder = json.JSONDecoder(
        object_pairs_hook=_no_key_twice if unique else None,
        parse_constant=odd.constant if odd else None,
        parse_float=odd.number if odd else None,
    )
    try:
        return decoder.decode(text)
    except _KeyGivenTwiceError:
        return _Placing().decode(text)  # slower, and raises it with its place


class _KeyGivenTwiceError(ValueError):
    """Without a place: what the decoder hands to the hook has none."""


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _KeyGivenTwiceError(f"the key {twice!r} is given twice")
    return found


class _Placing(json.JSONDecoder):
    """Says where the object begins that has a key twice."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=_no_key_twice)
        self.parse_object = self._object
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined] # not in its stub

    @staticmethod
    def _object(text_and_end: tuple[str, int], *rest: Any) -> Any:
        try:
            return json.decoder.JSONObject(text_and_end, *rest)  # type: ignore[attr-defined] # not in its stub
        except _KeyGivenTwiceError as error:
            text, after = text_and_end
            raise json.JSONDecodeError(str(error), text, after - 1) from None


def _holds_more(text: str, nodes: int) -> bool:
    """Whether a text holds more values, before it is read: one is the whole, others follow a bracket or a comma."""
    if len(text) <= nodes or text.count(",") + _openings(text) < nodes:
        return False
    found = 0
    for part in re.finditer(_PART, text):
        bare = re.sub(TEXT, "", part[0])
        found += bare.count(",") + _openings(bare)
        if found >= nodes:
            return True
    return False


def _is_deeper(value: Any, depth: int, text: str) -> bool:
    if _openings(text) <= depth:
        return False
    containers = [value]
    for _ in range(depth):
        members = (held.values() if type(held) is dict else held for held in containers)
        containers = [item for held in members for item in held if type(item) is dict or type(item) is list]
        if not containers:
            return False
    return True


def _openings(text: str) -> int:
    return text.count("[") + text.count("{")
