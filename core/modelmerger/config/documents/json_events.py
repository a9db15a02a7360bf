"""JSON as events: the standard library checks the grammar, a second look at the text finds the places."""

import contextlib
import json
import re
from collections.abc import Iterator

from modelmerger.config.documents.tree import END, Event, Place, UnreadableError, read_int

# Possessive, so that no text makes this try a character twice.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}\n]|[^\s\[\]{},:"]++')
_KINDS = {"{": dict, "[": list, "}": END, "]": END}
_decoded = json.JSONDecoder(parse_int=read_int).decode


def json_events(text: str) -> Iterator[Event]:
    """The events of a JSON text; `UnreadableError` where it is no JSON."""
    try:
        with contextlib.suppress(RecursionError):  # a tree stops long before so many levels
            json.loads(text, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        place = Place(error.lineno, error.colno)
        raise UnreadableError(f"{place}: this is not JSON ({error.msg}). Correct it there or just before.") from None
    line, begin = 1, 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == "\n":
            line, begin = line + 1, match.end()
        else:
            value = _KINDS[token] if token in _KINDS else _decoded(token)
            yield Event(value, Place(line, match.start() - begin + 1), token)
