"""JSON from files that may come from anyone: one reader, so that the same things are refused in the same words."""

import json
import re
from collections import Counter
from typing import Any

from modelmerger.values.errors import InputError, Problem

MOST_LEVELS = 100
MOST_VALUES = 10_000_000
"""About a gigabyte once they are read, and more than the tokenizer or the index of any model holds."""

# Possessive, and an unfinished text runs to the end: nothing makes this try a character twice.
_TEXT = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def read_json(
    content: bytes | str, source: str, *, depth: int = MOST_LEVELS, nodes: int = MOST_VALUES, unique: bool = True
) -> Any:
    """The value in a JSON document, as plain data. `source` names it in errors.

    content: UTF-8, with or without a byte order mark. depth: how many lists and objects may lie in each other. nodes:
    how many values there may be; keys do not count, and an empty list or object counts like one that holds a value.
    unique: whether a key that an object has twice is refused; otherwise the last one counts.

    NaN, infinities and halves of surrogate pairs, which Python writes though JSON has none, are read as what they are.
    Raises `InputError` for all else that is no JSON, and for what is too deep or too much.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        if _holds_more(text, nodes):
            reason = f"holds more than {nodes:,} values"
        else:
            value = (_UNIQUE if unique else _LAST).decode(text)
            if not _is_deeper(value, depth, text):
                return value
            reason = f"is nested more than {depth} levels deep"
    except RecursionError:
        reason = f"is nested more than {depth} levels deep"
    except ValueError as error:
        reason = f"is not sound JSON: {error}"
    # Out here, so that the error does not keep the text alive.
    raise InputError(Problem(f"{reason}.", source))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} is given twice")
    return found


_UNIQUE = json.JSONDecoder(object_pairs_hook=_unique_keys)
_LAST = json.JSONDecoder()


def _holds_more(text: str, nodes: int) -> bool:
    """Whether a text holds more values, before it is read: one is the whole, others follow a bracket or a comma."""
    if len(text) <= nodes or text.count(",") + _openings(text) < nodes:
        return False
    bare = _TEXT.sub("", text)
    return bare.count(",") + _openings(bare) >= nodes


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
