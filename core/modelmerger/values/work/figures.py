"""Figures about what a merge writes, as a table: what plugins measured beside it, for its report and its manifest."""

import math
from collections.abc import Mapping

import attrs
from attrs import field, frozen


def _finite(_: object, __: "attrs.Attribute[Rows]", rows: "Rows") -> None:
    for row, cells in rows.items():
        for column, value in cells.items():
            if not math.isfinite(value):
                raise ValueError(f"{row!r} has {value!r} in {column!r}, which is no finite number")


Rows = Mapping[str, Mapping[str, float]]
"""Name of a row (a model) → name of a column (what it was measured on) → a number."""


@frozen
class Figures:
    """A table of numbers. Raises `ValueError` for what is no finite number."""

    title: str
    """What the numbers are, with their unit: "tokens per word"."""
    rows: Rows = field(validator=_finite)
    """Row → column → number. Rows may have different columns."""
