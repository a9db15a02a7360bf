"""The JSON side of documents: the standard library checks the grammar, a walk over the tokens adds the places."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from modelmerger.config.documents.tree import (
    Scalar,
    Tree,
    UnreadableError,
    check_depth,
    check_nodes,
    place_of,
    read_int,
)

# Possessive, and an unfinished string runs to the end: no text makes this try a character twice.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]|[^\s\[\]{},:"]++', re.DOTALL)

_CONSTANTS: dict[str, Scalar] = {
    "true": True,
    "false": False,
    "null": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}


def fill_from_json(text: str, tree: Tree) -> None:
    """Hand the nodes of a JSON text to `tree`; `UnreadableError` where the text is no JSON."""
    _check_size(text)
    try:
        json.loads(text, parse_int=_ignore, parse_float=_ignore, parse_constant=_ignore)
    except json.JSONDecodeError as error:
        place = _Place(text, error.pos)
        raise UnreadableError(f"{place}: this is not JSON ({error.msg}). Correct it there or just before.") from None
    for token, place in _tokens(text):
        if token == "{":
            tree.begin({}, place)
        elif token == "[":
            tree.begin([], place)
        elif token in "]}":
            tree.end()
        elif tree.awaits_key:
            tree.key(json.loads(token), place)
        elif token.startswith('"'):
            tree.scalar(json.loads(token), place, token)
        else:
            tree.scalar(_literal(token), place, token)


class _Place:
    """An offset into a text, told as line and column only when somebody asks."""

    __slots__ = ("offset", "text")

    def __init__(self, text: str, offset: int) -> None:
        self.text = text
        self.offset = offset

    def __str__(self) -> str:
        return str(place_of(self.offset, self.text))


def _check_size(text: str) -> None:
    """Bound nesting and nodes before the standard library sees the text: it recurses, and it builds everything."""
    depth = nodes = 0
    for token, place in _tokens(text):
        if token in "]}":
            depth -= 1
            continue
        nodes += 1
        check_nodes(nodes, place)
        if token in "[{":
            depth += 1
            check_depth(depth, place)


def _tokens(text: str) -> Iterator[tuple[str, _Place]]:
    for match in _TOKEN.finditer(text):
        yield match[0], _Place(text, match.start())


def _literal(token: str) -> Scalar:
    if token in _CONSTANTS:
        return _CONSTANTS[token]
    return float(token) if re.search("[.eE]", token) else read_int(token)


def _ignore(_: Any) -> None:
    return None
