"""A document being built: one set of rules, whether it comes from YAML, from JSON or from Python values to be written."""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from modelmerger.values.text import shown

MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_PROBLEMS = 20
MAX_CHARACTERS = 1024 * 1024
"""Of all scalars together. Only aliases can make this more than the document itself has."""

# torch.manual_seed takes this range: signed and unsigned 64-bit numbers both belong to it.
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_YES_NO_KEYS = frozenset(("yes", "no", "on", "off"))


class UnreadableError(Exception):
    """Reading cannot go on; the message is the last problem, with its place."""


class Place(NamedTuple):
    """A position in a text; both numbers start at 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


class Event(NamedTuple):
    """What a reader meets next: a key, a value, or the end of a mapping or a list.

    value: a scalar; `dict` or `list`, after which come keys and values by turns, or values; or `END`, which closes these.
    place: as shown to the user. written: how a scalar is spelt, empty for one in YAML's quotes. problem: what its reader
    has against it, a sentence with the place.
    """

    value: Any
    place: Place | str
    written: str = ""
    problem: str = ""


END = object()


class Tree:
    """Builds dicts, lists and scalars from events, and collects what is wrong with them: 20 problems, `omitted` more.

    Raises `UnreadableError` for what makes the rest not worth reading: more than 50 levels of nesting, more than 100,000
    keys and values, a top level that is no mapping.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.omitted = 0
        self._nodes = self._characters = 0

    def report(self, problem: str) -> None:
        """Keep a problem; reading goes on. An alias repeats what stood at its anchor, and that is told once."""
        if problem in self.problems:
            return
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.omitted += 1

    def build(self, events: Iterator[Event]) -> dict[str, Any]:
        """The document, which means something only when there are no problems."""
        document: dict[str, Any] = {}
        for event in events:
            if event.value is not dict:
                empty = event.value is None and not event.written
                what = "empty" if empty else "a list" if event.value is list else "a single value"
                raise UnreadableError(f"{event.place}: {not_a_mapping(what)}")
            document = self._value(event, events, 0)
        return document

    def _value(self, event: Event, events: Iterator[Event], depth: int) -> Any:
        self._take(event, "a text")
        if isinstance(event.value, int | float):
            self._check_number(event)
        if event.value not in (dict, list):
            return event.value
        if depth == MAX_DEPTH:
            raise UnreadableError(f"{event.place}: more than {MAX_DEPTH} levels of nesting. Make the document flatter.")
        if event.value is dict:
            return self._mapping(events, depth + 1)
        found = []
        while (item := next(events)).value is not END:
            found.append(self._value(item, events, depth + 1))
        return found

    def _mapping(self, events: Iterator[Event], depth: int) -> dict[str, Any]:
        """The keys that are merged, then those of the mapping; where both have one, with the value of the mapping."""
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first: dict[str, Place | str] = {}
        while (event := next(events)).value is not END:
            key = self._key(event, events, depth)
            if key in first:
                self.report(f"{event.place}: key {show(key)} is given twice (first at {first[key]}). Remove one.")
            elif key is not None:
                first[key] = event.place
            value = self._value(next(events), events, depth)
            if event.written == "<<":
                merged = self._merged(value, event)
            elif key is not None:
                own[key] = value
        return merged | own

    def _merged(self, value: Any, event: Event) -> dict[str, Any]:
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            self.report(f"{event.place}: '<<' merges mappings. Give a mapping, an alias of one, or a list of them.")
            return {}
        # The first one that has a key decides.
        return {key: item for source in reversed(sources) for key, item in source.items()}

    def _key(self, event: Event, events: Iterator[Event], depth: int) -> str | None:
        """The text of a key, None for one that is refused."""
        if event.value in (dict, list):
            self.report(f"{event.place}: a list or a mapping cannot be a key. Use a text.")
            self._value(event, events, depth)
            return None
        self._take(event, "a key")
        if isinstance(event.value, str) and event.written.lower() not in _YES_NO_KEYS:
            return event.value
        if event.problem:
            return None
        if event.value is None and not event.written:
            self.report(f"{event.place}: the key before ':' is missing. Write it, or \"\" for an empty one.")
        elif isinstance(event.value, str):
            why = "is a boolean to some readers of YAML"
            self.report(f"{event.place}: key {show(event.written)} {why}. Put it in quotes.")
        else:
            kind = {bool: "a boolean", type(None): "null"}.get(type(event.value), "a number")
            why = f"is {kind}, a key must be a text"
            self.report(f"{event.place}: key {show(event.written)} {why}. Put it in quotes.")
        return None

    def _take(self, event: Event, what: str) -> None:
        self._nodes += 1
        self._characters += len(event.written) or (len(event.value) if isinstance(event.value, str) else 0)
        for count, most, of in (
            (self._nodes, MAX_NODES, "keys and values"),
            (self._characters, MAX_CHARACTERS, "characters in keys and values"),
        ):
            if count > most:
                raise UnreadableError(f"{event.place}: more than {most:,} {of}. Make the document smaller.")
        if event.problem:
            self.report(event.problem)
        if isinstance(event.value, str) and (found := forbidden(event.value)):
            self.report(f"{event.place}: {what} holds the {found[1]}. Remove it.")

    def _check_number(self, event: Event) -> None:
        value, why = event.value, ""
        if isinstance(value, int):
            if not _MIN_INT <= value <= _MAX_INT:
                why = "does not fit into 64 bits. Give a smaller integer"
        elif not math.isfinite(value):
            named = event.written.lstrip("+-.").lower() in ("inf", "nan", "infinity")
            why = f"is {'not a finite number' if named else 'too large for a 64-bit float'}. Give a finite number"
        elif value == 0 and re.search("[1-9]", re.split("[eE]", event.written)[0]):
            why = "is too small for a 64-bit float. Give 0 or a larger number"
        if why:
            self.report(f"{event.place}: {show(event.written)} {why}.")


def read_int(digits: str) -> int:
    """The value of decimal digits with an optional sign.

    Past 20 digits any number out of range stands for the value: Python converts long ones slowly, or not at all.
    """
    return int(digits) if len(digits.lstrip("+-0")) <= 20 else _MAX_INT + 1


def forbidden(text: str) -> tuple[int, str] | None:
    """The first character of `text` that no document may hold, its place and what to call it.

    It is one of those that YAML calls not printable, surrogates among them.
    """
    if (found := _FORBIDDEN.search(text)) is None:
        return None
    kind = "lone surrogate" if "\ud800" <= found[0] <= "\udfff" else "control character"
    return found.start(), f"{kind} U+{ord(found[0]):04X}"


def show(text: str, longest: int = 60) -> str:
    """`text` in quotes for a message, escaped and cut in the middle."""
    return f"'{shown(text, longest)}'"


def not_a_mapping(what: str) -> str:
    return f"the document is {what}, it must be a mapping of keys to values ('key: value')."
