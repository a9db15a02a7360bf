"""The JSON of a header, key by key: each function takes the text and a position, and gives what is there and the
position behind it.

Python's decoder would build the whole header at once, keep the last of two equal keys, and nest as deeply as a hostile
file likes.
"""

import re
from json import JSONDecodeError, JSONDecoder

from modelmerger.inputs.safetensors_header.header import HeaderError, quoted

_space = re.compile(r"[ \t\n\r]*").match
_colon = re.compile(r"[ \t\n\r]*:[ \t\n\r]*").match
_separator = re.compile(r"[ \t\n\r]*([,}])[ \t\n\r]*").match
_string_at = JSONDecoder().raw_decode
SURROGATES = r"[\ud800-\udfff]"
"""Finds half of a surrogate pair, which JSON can spell and UTF-8 cannot."""


def first_key(text: str, position: int) -> tuple[int, bool]:
    """From '{': where the first key is and True, or where the empty object ends and False."""
    position = _after_space(text, position + 1)
    if text.startswith("}", position):
        return _after_space(text, position + 1), False
    return position, True


def next_key(text: str, position: int) -> tuple[int, bool]:
    """From behind a value: where the next key is and True, or where the object ends and False."""
    if (match := _separator(text, position)) is None:
        raise _not_json(text, position, "',' or '}'")
    return match.end(), match[1] == ","


def key(text: str, position: int) -> tuple[str, int]:
    """A key, and where its value begins."""
    found, position = string(text, position)
    if (match := _colon(text, position)) is None:
        raise _not_json(text, position, "':'")
    return found, match.end()


def string(text: str, position: int) -> tuple[str, int]:
    """A string, and where it ends."""
    if not text.startswith('"', position):
        raise _not_json(text, position, "a string")
    try:
        found, position = _string_at(text, position)
    except JSONDecodeError as error:
        raise HeaderError(f"the header is not JSON: {error.msg} at character {error.pos:,}") from None
    if not found.isprintable() and re.search(SURROGATES, found):
        raise HeaderError(f"the header has half a surrogate pair, in {quoted(found)}")
    return found, position


def _after_space(text: str, position: int) -> int:
    match = _space(text, position)
    return match.end() if match else position


def _not_json(text: str, position: int, wanted: str) -> HeaderError:
    found = quoted(text[position : position + 20]) if position < len(text) else "the header's end"
    return HeaderError(f"the header is not JSON: at character {position:,} it needs {wanted} and has {found}")
