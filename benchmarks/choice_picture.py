"""What each strategy keeps and loses, as a picture: a panel for each variety. Plain SVG, legible on light and on dark."""

from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import escape

from attrs import frozen

WIDTH, MARGIN, LABELS, GAP = 1000, 12, 120, 24
TOP, LINE, FOOT = 62, 24, 26
LEAST, LEAST_OF_MSA, SPAN = -0.2, -0.8, 1.1
"""Where a panel begins, and how wide it is, in nats; what lies before it stands at its edge, with its number."""
STEP, LABELLED = 0.2, 2
"""Nats between two lines of the grid; every second one has its number."""
DEFAULT, BEST, OWN = "#2f81f7", "#d9822b", "#2da44e"
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.quiet { fill: #59636e; }
.grid { stroke: #8b949e; stroke-opacity: 0.3; }
.base { stroke: #59636e; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .quiet { fill: #9198a1; } .base { stroke: #9198a1; } }
"""


@frozen
class Panel:
    """Where one variety is drawn."""

    left: float
    width: float
    least: float
    """The gain at the left edge, in nats."""
    bottom: int

    def at(self, gain: float) -> float:
        """Where a gain is drawn."""
        return self.left + self.width * (gain - self.least) / SPAN

    def grid(self) -> Iterator[str]:
        """Its lines and their numbers; the gain of the base, 0, is darker."""
        for place in range(round(self.least / STEP), int((self.least + SPAN) / STEP) + 1):
            x = self.at(place * STEP)
            yield upright(x, self.bottom, f'class="{"grid" if place else "base"}"')
            if place % LABELLED == 0:
                words = f"{place * STEP:+.1f}".replace("-", "−") if place else "base"
                yield text(x, self.bottom + 16, words, "quiet", "middle")

    def mark(self, found: dict[str, float], y: int, colour: str) -> Iterator[str]:
        """A gain and its interval."""
        if found["value"] < self.least:
            yield f'<path d="M{self.left:.1f} {y}l7 -4v8z" fill="{colour}"/>'
            yield text(self.left + 10, y + 4, f"{found['value']:.2f}".replace("-", "−"), "quiet")
            return
        low, high = (self.at(found[end]) for end in ("low", "high"))
        yield f'<path d="M{max(low, self.left):.1f} {y}H{high:.1f}" stroke="{colour}" stroke-width="2"/>'
        yield f'<circle cx="{self.at(found["value"]):.1f}" cy="{y}" r="3" fill="{colour}"/>'


def draw(figures: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The picture of one set of siblings, strategies in the order of their rows."""
    names = list(dict.fromkeys(row["strategy"] for row in rows))
    varieties = [*figures["dialects"], "msa"]
    width = (WIDTH - 2 * MARGIN - LABELS - GAP * len(varieties)) / len(varieties)
    bottom = TOP + LINE * len(names)
    parts = legend()
    parts += [text(MARGIN, TOP + LINE * place + 16, name) for place, name in enumerate(names)]
    for number, variety in enumerate(varieties):
        left = MARGIN + LABELS + GAP + number * (width + GAP)
        panel = Panel(left, width, LEAST_OF_MSA if variety == "msa" else LEAST, bottom)
        parts.append(text(left, TOP - 10, "MSA" if variety == "msa" else variety.capitalize(), "title"))
        parts += panel.grid()
        if variety in figures["own"]:
            own = panel.at(figures["own"][variety]["value"])
            parts.append(upright(own, bottom, f'stroke="{OWN}" stroke-width="2" stroke-dasharray="4 3"'))
        for place, name in enumerate(names):
            for turn, row in enumerate(row for row in rows if row["strategy"] == name):
                y = TOP + LINE * place + 6 + 6 * turn
                parts += panel.mark(row["gains"][variety], y, BEST if row["best"] else DEFAULT)
    label = "Gain over the base in nats a token, by strategy and variety; further right is better"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + FOOT}" '
        f'viewBox="0 0 {WIDTH} {bottom + FOOT}" role="img" aria-label="{label}">\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def legend() -> list[str]:
    """What is drawn, above the panels."""
    parts = [text(MARGIN, 20, "Gain over the base, nats a token, with 95 % intervals", "quiet")]
    x = 400
    for colour, words in (
        (DEFAULT, "with its defaults, or matched"),
        (BEST, "with its best λ"),
        (OWN, "the dialect's own model"),
    ):
        parts.append(f'<rect x="{x}" y="11" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(text(x + 16, 20, words, "quiet"))
        x += 32 + 7 * len(words)
    return parts


def upright(x: float, bottom: int, how: str) -> str:
    """A line from the top of the panels to their bottom."""
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" {how}/>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Words at a place."""
    style = f' class="{kind}"' if kind else ""
    aligned = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.0f}" y="{y:.0f}"{style}{aligned}>{escape(words)}</text>'
