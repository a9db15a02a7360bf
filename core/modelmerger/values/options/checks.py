"""Validators for fields of options: attrs validators that also say, as JSON Schema, what they allow."""

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from attrs import Attribute


@frozen
class Check:
    """An attrs validator of an option."""

    allows: Mapping[str, Any]
    """JSON Schema keywords that describe good values."""
    problem: Callable[[Any], str | None]
    """Returns a sentence about a bad value, None for a good one."""

    def __call__(self, _: Any, __: "Attribute[Any]", value: Any) -> None:
        """Raises `ValueError` with the sentence about a bad value."""
        if sentence := self.problem(value):
            raise ValueError(sentence)


def must_be_one_of(*choices: str) -> Check:
    """The value must be one of these."""
    sentence = f"must be one of {', '.join(choices)}"
    return Check({"enum": list(choices)}, lambda value: None if value in choices else f"{sentence}, got {value!r}")


def must_be_between(low: float, high: float, *, open_below: bool = False, open_above: bool = False) -> Check:
    """The value must be in [low, high], without `low` if it is open below, without `high` if it is open above."""
    interval = f"{'(' if open_below else '['}{low:g}, {high:g}{')' if open_above else ']'}"

    def problem(value: float) -> str | None:
        if low < value < high or (value == low and not open_below) or (value == high and not open_above):
            return None
        return f"must be in {interval}, got {value!r}"

    least, most = "exclusiveMinimum" if open_below else "minimum", "exclusiveMaximum" if open_above else "maximum"
    return Check({least: low, most: high}, problem)


def must_be_available(*available: Any) -> Check:
    """The value must be one of these. Messages about others say that they are not available yet."""
    others = " or ".join(as_yaml(choice) for choice in available if choice is not None)
    advice = f"leave it out or give {others}" if others else "leave it out"

    def problem(value: Any) -> str | None:
        return None if value in available else f"{as_yaml(value)} is not available yet; {advice}"

    return Check({"enum": list(available)}, problem)


def as_yaml(value: Any) -> str:
    """A value as YAML has it: `true`, `0.5`, `'text'`."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


must_be_finite = Check({}, lambda value: None if math.isfinite(value) else f"must be a finite number, got {value!r}")
"""The value must be neither NaN nor infinite."""

must_not_be_empty = Check({"minLength": 1}, lambda value: None if value else "must not be empty")
"""The text must have at least one character."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def size_in_bytes(size: int | str) -> int:
    """`"5GB"` → 5,000,000,000; `"1GiB"` → 1,073,741,824; a number is bytes."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?I?B)?", str(size).strip(), re.IGNORECASE)
    count = float(match[1]) * _UNITS[(match[2] or "").upper()] if match and (match[2] or "").upper() in _UNITS else 0
    if count < 1:
        raise ValueError(f"must be a size such as '5GB', '500MB' or a number of bytes, got {size!r}")
    return int(count)
