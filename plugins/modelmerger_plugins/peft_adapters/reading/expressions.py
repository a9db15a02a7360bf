"""The regular expressions that an adapter's config may hold, matched without backtracking: they come from a stranger.

A set of places in a name is one integer, whose bit i is the place in front of character i. A pattern leads from one set
to the next, so that matching takes as many operations on such integers as the pattern has characters, or fewer.
"""

import re
from collections.abc import Iterator

from attrs import field, frozen

LONGEST = 300
"""The most characters of a pattern."""
DEEPEST = 8
"""The most groups within each other."""
ADMITTED = r"names, '.', '\d', '\w', sets such as [0-9], each with '*', '+' or '?', and groups such as (a|b)"
"""What may stand in a pattern, as messages say it."""
_TOKEN = re.compile(
    r"(?P<anchor>[\^$])|(?P<open>\((?:\?:)?)|(?P<close>\))|(?P<either>\|)|(?P<repeat>[*+?])\??"
    r"|(?P<set>\.|\\[dw]|\[\^?(?:[A-Za-z0-9_]-[A-Za-z0-9_]|\\[dw.-]|[A-Za-z0-9_.])+-?\])"
    r"|\\(?P<escaped>[^A-Za-z0-9])|(?P<literal>[^\\\[\](){}*+?|^$.])",
    re.DOTALL,
)
_MEMBER = re.compile(r"(\w)-(\w)|\\([dw])|\\?(.)", re.ASCII)


class UnadmittedError(Exception):
    """A pattern is not among those that are tried."""


@frozen(cache_hash=True)
class Characters:
    """A set of characters, one of which is to come next."""

    members: frozenset[str]
    """Single characters."""
    classes: str = ""
    """`d` for all digits, `w` for all characters of words."""
    negated: bool = False
    """Whether it is all the others."""


@frozen
class Item:
    """One thing in a sequence."""

    what: "Characters | Choice | str"
    """Characters, a group, or an anchor: `^` or `$`."""
    repeat: str = ""
    """How often it may come: `*`, `+`, `?`; empty: once."""


Choice = tuple[tuple[Item, ...], ...]
"""Sequences, any one of which is to come next."""


@frozen(eq=False)
class Name:
    """A module's name, to be matched. It has no line breaks, as no name of a tensor has any."""

    text: str
    """The name."""
    _places: dict[str, int] = field(init=False, factory=dict)
    """Character, or class of characters → the places in front of it."""
    _found: dict[Characters, int] = field(init=False, factory=dict, repr=False)
    """What `places` found."""

    def __attrs_post_init__(self) -> None:
        for place, character in enumerate(self.text):
            self._places[character] = self._places.get(character, 0) | 1 << place
        digits = _union(places for c, places in self._places.items() if c.isdecimal())
        words = _union(places for c, places in self._places.items() if c.isalnum() or c == "_")
        self._places.update({r"\d": digits, r"\w": words})

    @property
    def parts(self) -> int:
        """The places where a part of the dotted name begins."""
        return 1 | self._places.get(".", 0) << 1

    def places(self, characters: Characters) -> int:
        """The places in front of one of the characters."""
        if (found := self._found.get(characters)) is not None:
            return found
        found = _union(self._places[c] for c in self._places.keys() & characters.members)
        found |= _union(self._places[f"\\{name}"] for name in characters.classes)
        if characters.negated:
            found ^= (1 << len(self.text)) - 1
        return self._found.setdefault(characters, found)


def parsed(pattern: str) -> Choice:
    """The pattern, ready to be matched. Raises `UnadmittedError` for one that is not admitted."""
    if len(pattern) > LONGEST:
        raise UnadmittedError
    tokens, end = [], 0
    while end < len(pattern):
        if (match := _TOKEN.match(pattern, end)) is None:
            raise UnadmittedError
        tokens.append(match)
        end = match.end()
    return _choice(iter(tokens), 0)


def matches(pattern: Choice, name: Name) -> bool:
    r"""Whether `re.match(rf"(.*\.)?({pattern})$", name)` finds anything: whether the pattern fits the name's end."""
    return bool(_after(pattern, name.parts, name) >> len(name.text))


def _choice(tokens: Iterator[re.Match[str]], depth: int) -> Choice:
    """The alternatives up to the end of the group, or of the pattern where `depth` is 0."""
    if depth > DEEPEST:
        raise UnadmittedError
    alternatives: list[list[Item]] = [[]]
    for token in tokens:
        sequence, kind, text = alternatives[-1], token.lastgroup, token[0]
        if kind == "close" and depth:
            return tuple(map(tuple, alternatives))
        if kind == "either":
            alternatives.append([])
        elif kind == "open":
            sequence.append(Item(_choice(tokens, depth + 1)))
        elif kind == "anchor":
            sequence.append(Item(text))
        elif kind == "repeat" and sequence and _repeatable(sequence[-1], text[0]):
            sequence.append(Item(sequence.pop().what, text[0]))
        elif kind == "set":
            sequence.append(Item(_characters(text)))
        elif kind in ("literal", "escaped"):
            sequence.append(Item(Characters(frozenset(text[-1]))))
        else:
            raise UnadmittedError
    if depth:
        raise UnadmittedError
    return tuple(map(tuple, alternatives))


def _repeatable(item: Item, repeat: str) -> bool:
    """Characters may be repeated, a group may be left out."""
    return not item.repeat and (isinstance(item.what, Characters) or (isinstance(item.what, tuple) and repeat == "?"))


def _characters(text: str) -> Characters:
    """What a dot, a class or a set in brackets stands for. Raises `UnadmittedError` for a range that ends too early."""
    if text == ".":
        return Characters(frozenset(), negated=True)
    if text[0] == "\\":
        return Characters(frozenset(), text[1])
    members: set[str] = set()
    classes, negated = "", text[1] == "^"
    for token in _MEMBER.finditer(text[1 + negated : -1]):
        first, last, of_class, single = token.groups()
        if of_class:
            classes += of_class
        elif single:
            members.add(single)
        elif first <= last:
            members.update(map(chr, range(ord(first), ord(last) + 1)))
        else:
            raise UnadmittedError
    return Characters(frozenset(members), classes, negated)


def _after(choice: Choice, places: int, name: Name) -> int:
    """The places behind any of the alternatives that begin at these places."""
    return _union(_after_sequence(sequence, places, name) for sequence in choice)


def _after_sequence(sequence: tuple[Item, ...], places: int, name: Name) -> int:
    for item in sequence:
        if not places:
            break
        if isinstance(item.what, Characters):
            places = _after_characters(name.places(item.what), item.repeat, places)
        elif isinstance(item.what, str):
            places &= 1 if item.what == "^" else 1 << len(name.text)
        else:
            places = _after(item.what, places, name) | (places if item.repeat else 0)
    return places


def _after_characters(there: int, repeat: str, places: int) -> int:
    """The places behind characters that stand at the places `there`."""
    once = (places & there) << 1
    if repeat == "":
        return once
    if repeat == "?":
        return places | once
    first = places if repeat == "*" else once
    return first | ((there + (first & there)) ^ there)  # the carry of the sum runs to the end of each run of characters


def _union(sets: Iterator[int]) -> int:
    union = 0
    for places in sets:
        union |= places
    return union
