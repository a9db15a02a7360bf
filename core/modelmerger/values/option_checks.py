"""Validators for options: attrs validators that also say, as JSON Schema, what they allow."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from attrs import Attribute


@frozen
class Check:
    """An attrs validator. allows: JSON Schema keywords for a good value. problem: a sentence about a bad value, else None."""

    allows: Mapping[str, Any]
    problem: Callable[[Any], str | None]

    def __call__(self, _: Any, __: "Attribute[Any]", value: Any) -> None:
        if sentence := self.problem(value):
            raise ValueError(sentence)


def must_be_one_of(*choices: str) -> Check:
    """The value is one of these."""
    sentence = f"must be one of {', '.join(choices)}"
    return Check({"enum": list(choices)}, lambda value: None if value in choices else f"{sentence}, got {value!r}")


def must_be_between(low: float, high: float, *, open_below: bool = False, open_above: bool = False) -> Check:
    """Low ≤ value ≤ high; low < value if it is open below, value < high if it is open above."""
    interval = f"{'(' if open_below else '['}{low:g}, {high:g}{')' if open_above else ']'}"

    def problem(value: float) -> str | None:
        if low < value < high or (value == low and not open_below) or (value == high and not open_above):
            return None
        return f"must be in {interval}, got {value!r}"

    least, most = "exclusiveMinimum" if open_below else "minimum", "exclusiveMaximum" if open_above else "maximum"
    return Check({least: low, most: high}, problem)


def must_be_available(*available: Any) -> Check:
    """For what later versions will do: any value but these is refused."""
    others = " or ".join(as_yaml(choice) for choice in available if choice is not None)
    advice = f"leave it out or give {others}" if others else "leave it out"

    def problem(value: Any) -> str | None:
        return None if value in available else f"{as_yaml(value)} is not available yet; {advice}"

    return Check({"enum": list(available)}, problem)


def as_yaml(value: Any) -> str:
    """A value as the user wrote it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


must_be_finite = Check({}, lambda value: None if math.isfinite(value) else f"must be a finite number, got {value!r}")
"""Neither NaN nor infinite."""

must_not_be_empty = Check({"minLength": 1}, lambda value: None if value else "must not be empty")
"""A text of at least one character."""
