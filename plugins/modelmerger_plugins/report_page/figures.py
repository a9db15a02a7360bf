"""What plugins measured beside the merge, as tables of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from modelmerger_plugins.report_page.measured import number


@frozen
class Table:
    """One of them."""

    title: str
    """What its numbers are."""
    columns: Sequence[str]
    """What they were measured on."""
    rows: Sequence[tuple[str, Sequence[str]]]
    """The name of each row, and its numbers by column; empty where it has none."""


def tables(manifest: Mapping[str, Any]) -> list[Table]:
    """The tables, in the order of the manifest."""
    return [_table(title, rows) for title, rows in manifest.get("figures", {}).items()]


def _table(title: str, rows: Mapping[str, Mapping[str, float]]) -> Table:
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    return Table(title, columns, [(name, [_shown(cells.get(c)) for c in columns]) for name, cells in rows.items()])


def _shown(value: float | None) -> str:
    return f"{value:,.0f}" if value is not None and value == round(value) else number(value)
