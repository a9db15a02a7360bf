"""Results as bars: wall time and peak memory side by side. Plain SVG, legible on light and on dark ground."""

from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from results import Result

WIDTH, MARGIN, LABELS, NUMBERS, GAP = 920, 16, 120, 78, 20
BAR, LINE, TITLE, TOP = 14, 19, 26, 40
PANEL = (WIDTH - 2 * MARGIN - LABELS - GAP) // 2 - NUMBERS
COLOURS = {"modelmerger": "#2f81f7", "mergekit": "#d9822b", "peft": "#a371f7", "cp": "#8b949e"}
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.quiet { fill: #59636e; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .quiet { fill: #9198a1; } }
"""
PANELS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("wall time, seconds", "wall", lambda value: f"{value:.1f} s"),
    ("peak memory, MiB", "peak_resident", lambda value: f"{value / 2**20:,.0f} MiB"),
)


def draw(results: Sequence[Result]) -> str:
    parts: list[str] = []
    drawn = [(result, shown) for result in results if (shown := [name for name in result.runs if name in COLOURS])]
    for place, (heading, quantity, _) in enumerate(PANELS):
        parts.append(text(start_of(place), 20, heading, "quiet"))
        largest = max((result.median(name, quantity) for result, shown in drawn for name in shown), default=1.0)
        y = TOP
        for result, shown in drawn:
            y = draw_merge(parts, result, shown, place, largest, y)
    height = TOP + sum(TITLE + LINE * len(shown) for _, shown in drawn) + 8
    label = "Wall time and peak memory of merges, by program; shorter is better"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{label}">\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def draw_merge(parts: list[str], result: Result, shown: list[str], place: int, largest: float, y: int) -> int:
    """Append one merge's bars in one panel; returns where the next one begins."""
    _, quantity, write = PANELS[place]
    left = start_of(place)
    if place == 0:
        parts.append(text(MARGIN, y + 14, result.name, "title"))
    y += TITLE
    for name in shown:
        value = result.median(name, quantity)
        width = max(1.0, PANEL * value / largest)
        if place == 0:
            parts.append(text(MARGIN, y + BAR - 3, name))
        colour = COLOURS[name]
        parts.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>')
        parts.append(text(left + width + 6, y + BAR - 3, write(value), "quiet"))
        y += LINE
    return y


def start_of(place: int) -> int:
    return MARGIN + LABELS + place * (PANEL + NUMBERS + GAP)


def text(x: float, y: float, words: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y}"{style}>{escape(words)}</text>'
