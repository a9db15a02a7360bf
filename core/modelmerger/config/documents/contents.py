"""What a document may hold, wherever it comes from: plain values within fixed limits."""

import math
import re
from collections.abc import Mapping
from typing import Any

from modelmerger.values.errors import ConfigError
from modelmerger.values.text import shown

MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_CHARACTERS = 1024 * 1024
"""Of all texts together. Only aliases can make this more than the document itself has."""
_FORBIDDEN = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"


def forbidden_in(text: str) -> re.Match[str] | None:
    """The first character that YAML calls not printable; None where there is none."""
    if text.replace("\n", "").isprintable():  # as most texts are, for which no pattern is compiled
        return None
    return re.search(_FORBIDDEN, text)


class Contents:
    """Counts what a document holds, and collects what it may not hold."""

    def __init__(self) -> None:
        self.problems: dict[str, None] = {}
        """Sentences with a place, each once: aliases repeat what stands at their anchor."""
        self._nodes = self._characters = 0

    def report(self, place: str, sentence: str) -> None:
        """Keeps a problem; reading goes on."""
        self.problems[f"{place}: {sentence}"] = None

    def count(self, place: str, depth: int = 0, text: str = "") -> None:
        """One more key or value, inside of `depth` lists and mappings. Raises `ConfigError` past the limits."""
        self._nodes += 1
        self._characters += len(text)
        for found, most, what in (
            (depth, MAX_DEPTH, "levels of nesting"),
            (self._nodes, MAX_NODES, "keys and values"),
            (self._characters, MAX_CHARACTERS, "characters in keys and values"),
        ):
            if found > most:
                raise ConfigError(f"{place}: more than {most:,} {what}. Make the document smaller.")

    def scalar(self, value: Any, place: str) -> Any:
        """A key or value that holds no others, checked, and as a plain type."""
        if isinstance(value, str):
            value = str.__str__(value)
            if found := forbidden_in(value):
                self.report(place, f"the character U+{ord(found[0]):04X} is not allowed. Remove it.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            value = int(value) if isinstance(value, int) else float(value)
            # torch.manual_seed takes these integers: signed and unsigned ones of 64 bits.
            if not (math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**64):
                self.report(place, "the number is not finite or does not fit into 64 bits. Give another one.")
        elif value is not None and not isinstance(value, bool):
            self.report(place, f"a '{type(value).__name__}' is not allowed. Give texts, numbers, lists or mappings.")
        return value

    def copy(self, value: Any, place: str = "", depth: int = 0) -> Any:
        """A value and all that it holds, counted, checked, and as plain types. place: the keys that lead to it."""
        if not isinstance(value, list | tuple | Mapping):
            self.count(place, text=value if isinstance(value, str) else "")
            return self.scalar(value, place)
        self.count(place, depth + 1)
        if not isinstance(value, Mapping):
            return [self.copy(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
        copied = {}
        for key, item in value.items():
            below = f"{place}.{shown(key, 40)}" if place else shown(key, 40)
            if not isinstance(key, str):
                self.report(below, "the key is not a text. Give a text.")
            name = self.copy(key if isinstance(key, str) else "", below)
            copied[name] = self.copy(item, below, depth + 1)
        return copied
