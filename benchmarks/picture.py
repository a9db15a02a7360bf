"""Results as bars: wall time and peak memory side by side. Plain SVG, legible on light and on dark ground.

    python benchmarks/picture.py RESULTS.json... [--shapes 1.5B,7B] > PICTURE.svg

Of files that `run.py` wrote. Each size of model has a scale of its own, so that the smaller ones can be seen.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

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
    ("wall time; each size to its own scale", "wall", lambda value: f"{value:.1f} s"),
    ("peak memory; likewise", "peak_resident", lambda value: f"{value / 2**20:,.0f} MiB"),
)
Merge = dict[str, Any]


def draw(merges: Sequence[Merge]) -> str:
    """merges: as `Result.as_json` gives them."""
    parts: list[str] = []
    drawn = [(merge, shown) for merge in merges if (shown := [name for name in merge["medians"] if name in COLOURS])]
    for place, (heading, quantity, _) in enumerate(PANELS):
        parts.append(text(start_of(place), 20, heading, "quiet"))
        longest: dict[str, float] = {}
        for merge, shown in drawn:
            most = max(merge["medians"][name][quantity] for name in shown)
            longest[merge["shape"]] = max(most, longest.get(merge["shape"], 0.0))
        y = TOP
        for merge, shown in drawn:
            y = draw_merge(parts, merge, shown, place, longest[merge["shape"]], y)
    height = TOP + sum(TITLE + LINE * len(shown) for _, shown in drawn) + 8
    label = "Wall time and peak memory of merges, by program; shorter is better"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{label}">\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def draw_merge(parts: list[str], merge: Merge, shown: list[str], place: int, longest: float, y: int) -> int:
    """Append one merge's bars in one panel; returns where the next one begins."""
    _, quantity, write = PANELS[place]
    left = start_of(place)
    if place == 0:
        parts.append(text(MARGIN, y + 14, merge["name"], "title"))
    y += TITLE
    for name in shown:
        value = merge["medians"][name][quantity]
        width = max(1.0, PANEL * value / longest)
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument(
        "--shapes", type=lambda names: names.split(","), help="the sizes that are drawn; without it, all"
    )
    options = parser.parse_args(arguments)
    merges = [merge for path in options.results for merge in json.loads(path.read_text())["merges"]]
    sys.stdout.write(draw([m for m in merges if not options.shapes or m["shape"] in options.shapes]))


if __name__ == "__main__":
    main()
