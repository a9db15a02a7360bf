"""Parameters: what a recipe may give for one, and which of the levels decides."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from modelmerger import Problem, shown

Scalar = bool | int | float | str
TRUE, FALSE = ("true", "1", "1.0", "yes", "on", "y", "t"), ("false", "0", "0.0", "no", "off", "n", "f")


@frozen
class Entry:
    """A value of a parameter, and the tensors that have it."""

    filter: str
    """A part of their names; empty for all."""
    value: Scalar | tuple[Scalar, ...]
    """A value, or a gradient over the layers."""
    where: str
    """The parameter in the file."""


@frozen
class Level:
    """Parameters that stand at one place of a recipe."""

    where: str
    """The place: `models[0].parameters`."""
    values: Mapping[str, Sequence[Entry]]
    """By name; a parameter that is given and says nothing is left out."""
    wrong: frozenset[str] = frozenset()
    """Names of parameters that are given and wrong."""


def read_level(given: Any, where: str, problems: list[Problem]) -> Level:
    """The parameters of one place. What is wrong, `problems` gets."""
    if not isinstance(given, Mapping | None):
        problems.append(Problem(f"must be a mapping of parameters, got {shown(repr(given), 40)}", where))
        return Level(where, {})
    found, wrong = {}, set()
    for name, value in (given or {}).items():
        before = len(problems)
        entries = _entries(value, f"{where}.{name}", problems)
        if len(problems) > before:
            wrong.add(str(name))
        elif entries:
            found[str(name)] = entries
    return Level(where, found, frozenset(wrong))


def resolve(name: str, levels: Sequence[Level]) -> list[Entry]:
    """What decides the parameter: in the order of the levels, as far as the first that is for all tensors."""
    found: list[Entry] = []
    for level in levels:
        for entry in level.values.get(name, ()):
            found.append(entry)
            if not entry.filter:
                return found
    return found


def hidden(level: Level) -> list[Problem]:
    """Warnings about what stands behind a value for all tensors, and so never decides."""
    said = []
    for entries in level.values.values():
        everything = next((i for i, entry in enumerate(entries) if not entry.filter), len(entries))
        for entry in entries[everything + 1 :]:
            what = f"the filter '{shown(entry.filter, 40)}'" if entry.filter else "another value"
            message = f"{what} stands behind a value for all tensors, so it never decides. Put that value last"
            said.append(Problem(message, entry.where, severity="warning"))
    return said


def as_number(value: Scalar) -> float:
    """The number, also of a text. Raises `ValueError` with a sentence."""
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"must be a number, got '{shown(str(value), 40)}'") from None
    if not math.isfinite(number):
        raise ValueError(f"must be finite, got {number}")
    return number


def as_count(value: Scalar) -> int:
    """The whole number. Raises `ValueError` with a sentence."""
    number = as_number(value)
    if number != int(number):
        raise ValueError(f"must be a whole number, got {number:g}")
    return int(number)


def as_truth(value: Scalar) -> bool:
    """The truth, as mergekit takes texts and numbers for one. Raises `ValueError` with a sentence."""
    text = str(value).strip().lower()
    if text in TRUE or text in FALSE:
        return text in TRUE
    raise ValueError(f"must be true or false, got {shown(repr(value), 40)}")


def _entries(given: Any, where: str, problems: list[Problem]) -> list[Entry]:
    if isinstance(given, Mapping):
        given = [given]
    if isinstance(given, list) and any(isinstance(item, Mapping) for item in given):
        if not all(isinstance(item, Mapping) for item in given):
            message = "mixes values with mappings. Write each value as {value: …}, with a filter or without"
            problems.append(Problem(message, where))
            return []
        return [entry for item in given for entry in _filtered(item, where, problems)]
    if (value := _value(given, where, problems)) is None:
        return []
    return [Entry("", value, where)]


def _filtered(given: Mapping[str, Any], where: str, problems: list[Problem]) -> list[Entry]:
    unknown = [key for key in given if key not in ("filter", "value")]
    if unknown or "value" not in given:
        what = f"has the key '{shown(str(unknown[0]), 40)}'" if unknown else "has no value"
        problems.append(Problem(f"{what}. Write {{filter: PART OF A NAME, value: …}}", where))
        return []
    value = _value(given["value"], where, problems)
    named = given.get("filter")
    return [] if value is None else [Entry("" if named in (None, "*") else str(named), value, where)]


def _value(given: Any, where: str, problems: list[Problem]) -> Scalar | tuple[Scalar, ...] | None:
    """A value or a gradient; None where it says nothing or is wrong."""
    if isinstance(given, list):
        if all(isinstance(item, bool | int | float | str) for item in given):
            return tuple(given) or None
    elif isinstance(given, bool | int | float | str):
        return given
    kind = "empty" if given is None else "a list of something else than values"
    problems.append(Problem(f"is {kind}. Give a number, a list of numbers, or leave it out", where))
    return None
