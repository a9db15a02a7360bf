"""A comparison of merges as a page."""

from pathlib import Path

from modelmerger_plugins.pages.rendering import render as fill
from modelmerger_plugins.pages.scatter import Dot, scatter
from modelmerger_plugins.report_page.compared import Comparison


def render(found: Comparison, axes: tuple[str, str] | None) -> bytes:
    """HTML that needs no other file. axes: the metrics of the scatter. Equal comparisons give equal bytes."""
    values = {(f.metric, f.model): f.value for f in found.report.findings if not f.label}
    dots = [
        Dot(merge.name, x, y)
        for merge in found.merges
        if axes is not None
        and (x := values.get((axes[0], merge.name))) is not None
        and (y := values.get((axes[1], merge.name))) is not None
    ]
    ways = {row.name: f"{row.name} ({row.better} is better)" if row.better else row.name for row in found.rows}
    drawn = scatter(ways[axes[0]], ways[axes[1]], dots) if axes is not None and dots else None
    return fill(Path(__file__).parent / "comparison.html.j2", found=found, drawn=drawn, axes=axes)
