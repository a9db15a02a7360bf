"""A document being built: one set of rules, whether it comes from YAML, from JSON or from Python values to be written.

Readers hand their nodes to a `Tree` one at a time, in the order of the text. The tree keeps an explicit stack, so the
depth of a document never becomes the depth of the interpreter's own stack.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from modelmerger.values.text import shown

MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_PROBLEMS = 20

# torch.manual_seed takes this range: signed and unsigned 64-bit numbers both belong to it.
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_LONGEST_INT = 20

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")

Scalar = str | int | float | bool | None


class Place(NamedTuple):
    """A position in a text; both numbers start at 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


class UnreadableError(Exception):
    """Reading cannot go on; the message is the last problem, with its place."""


class Tree:
    """Collects nodes into dicts, lists and scalars, and every problem met on the way.

    `root` is the document and `problems` what is wrong with it; `root` means something only when there are no problems.
    Only the first 20 problems are kept, `omitted` counts the others. Places are shown to the user, whatever their type.

    Raises `UnreadableError` for what makes the rest not worth reading: more than 50 levels of nesting, more than
    100,000 nodes (keys count), a top level that is no mapping.
    """

    def __init__(self) -> None:
        self.root: Any = None
        self.problems: list[str] = []
        self.omitted = 0
        self._levels: list[_Level] = []
        self._nodes = 0

    @property
    def awaits_key(self) -> bool:
        """Whether the next node is a key of a mapping."""
        return bool(self._levels) and self._levels[-1].awaits_key

    def report(self, place: object, sentence: str, *words: object) -> None:
        """Keep a problem, with `words` put into the braces of `sentence`; reading goes on."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{place}: {sentence.format(*words)}")
        else:
            self.omitted += 1

    def stop(self, error: UnreadableError) -> None:
        """Keep the last problem."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(str(error))
        else:
            self.omitted += 1

    def key(self, name: str | None, place: object) -> None:
        """Take the next key of the open mapping; None for a key that was refused already."""
        self._count(place)
        level = self._levels[-1]
        level.awaits_key = False
        if name is None:
            return
        self._check_text(name, place, "a key")
        if name in level.seen:
            self.report(place, "key {} is given twice (first at {}). Remove one.", show(name), level.seen[name])
        else:
            level.seen[name] = place
        level.name = name

    def scalar(self, value: Scalar, place: object, written: str) -> None:
        """Take a value; `written` is how the text spells it."""
        self._count(place)
        if not self._levels:
            raise UnreadableError(_not_a_mapping(place, "a single value" if written else "empty"))
        if isinstance(value, str):
            self._check_text(value, place, "a text")
        elif isinstance(value, float):
            self._check_float(value, place, written)
        elif isinstance(value, int) and not _MIN_INT <= value <= _MAX_INT:
            self.report(place, "{} does not fit into 64 bits. Give a smaller integer.", show(written))
        self._put(value)

    def begin(self, container: dict[str, Any] | list[Any], place: object) -> None:
        """Open a mapping or a list; `container` is empty and filled in place."""
        self._count(place)
        if not self._levels and isinstance(container, list):
            raise UnreadableError(_not_a_mapping(place, "a list"))
        check_depth(len(self._levels) + 1, place)
        if self.awaits_key:
            self.report(place, "a list or a mapping cannot be a key. Use a text.")
        self._put(container)
        self._levels.append(_Level(container))

    def end(self) -> None:
        """Close what was opened last."""
        self._levels.pop()

    def _put(self, value: Any) -> None:
        if not self._levels:
            self.root = value
            return
        level = self._levels[-1]
        if isinstance(level.container, list):
            level.container.append(value)
        else:
            # The value of a refused key lands anywhere: a tree with problems is never looked at.
            level.container[level.name] = value
            level.awaits_key = not level.awaits_key

    def _count(self, place: object) -> None:
        self._nodes += 1
        check_nodes(self._nodes, place)

    def _check_text(self, text: str, place: object, what: str) -> None:
        if found := _FORBIDDEN.search(text):
            self.report(place, "{} holds the {}. Remove it.", what, name_character(found[0]))

    def _check_float(self, value: float, place: object, written: str) -> None:
        if not math.isfinite(value):
            named = written.lstrip("+-.").lower() in ("inf", "nan", "infinity")
            why = "is not a finite number" if named else "is too large for a 64-bit float"
            self.report(place, "{} {}. Give a finite number.", show(written), why)
        elif value == 0 and re.search("[1-9]", re.split("[eE]", written)[0]):
            self.report(place, "{} is too small for a 64-bit float. Give 0 or a larger number.", show(written))


class _Level:
    """An open container; for a mapping also whether a key comes next, the last key, and where each key came first."""

    __slots__ = ("awaits_key", "container", "name", "seen")

    def __init__(self, container: dict[str, Any] | list[Any]) -> None:
        self.container = container
        self.awaits_key = isinstance(container, dict)
        self.name = ""
        self.seen: dict[str, object] = {}


def check_depth(depth: int, place: object) -> None:
    """Raise `UnreadableError` where a container would be the 51st around a value."""
    if depth > MAX_DEPTH:
        raise UnreadableError(f"{place}: more than {MAX_DEPTH} levels of nesting. Make the document flatter.")


def check_nodes(count: int, place: object) -> None:
    """Raise `UnreadableError` at key or value number 100,001."""
    if count > MAX_NODES:
        raise UnreadableError(f"{place}: more than {MAX_NODES:,} keys and values. Make the document smaller.")


def place_of(offset: int, text: str) -> Place:
    """The place of a character of `text`, with lines that end in a line feed."""
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def read_int(digits: str) -> int:
    """The value of decimal digits with an optional sign.

    Past 20 digits any number out of range stands for the value: Python converts long ones slowly, or not at all.
    """
    return int(digits) if len(digits.lstrip("+-0")) <= _LONGEST_INT else _MAX_INT + 1


def find_forbidden(text: str) -> re.Match[str] | None:
    """The first character of `text` that no document may hold: all that YAML calls not printable, surrogates too."""
    return _FORBIDDEN.search(text)


def name_character(character: str) -> str:
    """What to call a forbidden character in a sentence."""
    kind = "lone surrogate" if "\ud800" <= character <= "\udfff" else "control character"
    return f"{kind} U+{ord(character):04X}"


def show(text: str, longest: int = 60) -> str:
    """`text` in quotes for a message, escaped and cut in the middle."""
    return f"'{shown(text, longest)}'"


def _not_a_mapping(place: object, what: str) -> str:
    return f"{place}: the document is {what}, it must be a mapping of keys to values ('key: value')."
