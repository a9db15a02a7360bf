"""Numbers that JSON has not, and Python reads: NaN, infinities, and what no float64 holds."""

import math
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from modelmerger.values.text import shown

TEXT = r'(?s:"[^"\\]*+(?:\\.[^"\\]*+)*+"?)'
"""A text with its quotes, as a pattern. Possessive, and an unfinished one runs to the end: no character is tried twice.
"""
_TOKEN = rf"{TEXT}|NaN|-?Infinity|-?\d++(?:\.\d++)?+(?:[eE][+-]?\d++)?+"
_INFINITIES = ("Infinity", "-Infinity")
_TAG = "__float__"
_MUST = "Write a finite number there, or leave the key out"


class OddNumbers:
    """Stands for the odd numbers of one document while it is read, so that their places can be told after it."""

    def __init__(self, infinite: Collection[str]) -> None:
        """infinite: the keys that infinities may stand at, or in a list there."""
        self._infinite = infinite
        self._count = 0

    def constant(self, text: str) -> "_Odd":
        """For `parse_constant` of a decoder."""
        self._count += 1
        return _Odd(text, self._count - 1)

    def number(self, text: str) -> "float | _Odd":
        """For `parse_float`."""
        return self.constant(text) if math.isinf(value := float(text)) else value

    def settle(self, value: Any, text: str) -> Any:
        """The value with `{"__float__": "Infinity"}` for each infinity that may be.

        value: what the decoder made of the text. Raises `ValueError` with line and key of the first other odd number.
        """
        if not self._count:
            return value
        top = [value]
        places = {held[index].order: (held, index, keys) for held, index, keys in _odd_in(top)}
        for order in range(self._count):
            # A key that is given twice hides what it held first.
            held, index, keys = places.get(order, ([_Odd("", order)], 0, None))
            if keys is None or keys[1] not in self._infinite or held[index].text not in _INFINITIES:
                raise ValueError(_refusal(text, order, keys))
            held[index] = {_TAG: held[index].text}
        return top[0]


class _Odd:
    def __init__(self, text: str, order: int) -> None:
        """order: which of the odd numbers of the text this is."""
        self.text, self.order = text, order


_Keys = tuple[Any, str] | None
"""The keys above a value: those above the last one, and it. As texts they would be long for a great many values."""


def _odd_in(top: list[Any]) -> Iterator[tuple[Any, Any, _Keys]]:
    """Where the odd numbers lie: the list or object, the index in it, and the keys above."""
    waiting: list[tuple[Any, _Keys]] = [(top, None)]
    while waiting:
        held, above = waiting.pop()
        inside: Iterable[tuple[Any, Any]] = held.items() if isinstance(held, dict) else enumerate(held)
        for index, item in inside:
            if isinstance(item, dict | list | _Odd):
                keys = (above, index) if isinstance(held, dict) else above
                if isinstance(item, _Odd):
                    yield held, index, keys
                else:
                    waiting.append((item, keys))


def _refusal(text: str, order: int, keys: _Keys) -> str:
    odd = [match for match in re.finditer(_TOKEN, text) if _is_odd(match[0])][order]
    line = text.count("\n", 0, odd.start()) + 1
    place = f"line {line}, key {shown(_joined(keys), 80)}" if keys else f"line {line}"
    reason = "is no number in JSON" if odd[0][-1].isalpha() else "is beyond what a float64 can hold"
    return f"{shown(odd[0], 40)} ({place}) {reason}. {_MUST}"


def _joined(keys: _Keys) -> str:
    found = []
    while keys is not None:
        keys, key = keys
        found.append(key)
    return ".".join(reversed(found))


def _is_odd(token: str) -> bool:
    if token.startswith('"') or token.lstrip("-").isdigit():
        return False
    return token[-1].isalpha() or math.isinf(float(token))
