"""The differences of two models as a page."""

from pathlib import Path

from modelmerger_plugins.diff.differences import Differences
from modelmerger_plugins.diff.table import percent, value
from modelmerger_plugins.pages.plots import Series, plot
from modelmerger_plugins.pages.rendering import render as fill

MOST = 50
"""Tensors that the page lists."""


def render(found: Differences) -> bytes:
    """HTML that needs no other file. Equal differences give equal bytes."""
    numbers = found.compared == "numbers" and found.changed
    layers = Series("B", [group.relative for group in found.groups], dashed=False)
    names = [group.name.removesuffix(" the layers").rpartition(".")[-1] for group in found.groups]
    drawn = plot("Distance", "‖B − A‖ / ‖A‖ from the first layer to the last.", names, [layers], percent=True)
    return fill(
        Path(__file__).parent / "page.html.j2",
        found=found,
        plot=drawn if numbers else None,
        changes=sorted(found.changes, key=lambda row: -(row["relative"] or 0))[:MOST] if numbers else [],
        percent=percent,
        value=value,
    )
