"""The figures of `choosing.py`: as JSON, as the tables of the page, and as its picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, frozen
from choice_picture import draw

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "choosing.json"
PAGE = HERE.parent / "docs" / "explanation" / "choosing-a-strategy.md"
PICTURE = PAGE.with_suffix(".svg")
DIGITS = 4
"""Behind the decimal point, of nats."""


@frozen
class Interval:
    """A figure and its 95 % interval, in nats a token."""

    value: float
    low: float
    high: float


@frozen
class Row:
    """One strategy."""

    strategy: str
    scale: str
    """λ in words; empty where the strategy has none."""
    best: bool
    """Whether that is the best λ, and not the default."""
    losses: dict[str, float]
    """By variety, in nats a token."""
    gains: dict[str, Interval]
    """Over the base, by variety."""
    mean: Interval
    """Over the base, of the dialects that were merged."""
    beside: Interval
    """Over task arithmetic at its best λ, of the same."""


@frozen
class Figures:
    """The merges of some siblings."""

    dialects: tuple[str, ...]
    base: dict[str, float]
    """The losses of the base."""
    own: dict[str, Interval]
    """The gain of each dialect's own model."""
    own_mean: Interval
    """Their mean."""
    rows: list[Row]


def as_json(sets: Sequence[Figures]) -> list[dict[str, Any]]:
    """Plain values, rounded."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(inner) for inner in value]
        return round(value, DIGITS) if isinstance(value, float) else value

    return [rounded(asdict(figures)) for figures in sets]


def ordered(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the figures: the strategy with the largest mean gain first, its default before its best λ."""
    most: dict[str, float] = {}
    for row in figures["rows"]:
        most[row["strategy"]] = max(most.get(row["strategy"], -10.0), row["mean"]["value"])
    return sorted(figures["rows"], key=lambda row: (-most[row["strategy"]], row["strategy"], row["best"]))


def table(figures: dict[str, Any]) -> str:
    """The figures of one set of siblings as a Markdown table."""
    dialects = figures["dialects"]
    headings = ["strategy", "λ", *(name.capitalize() for name in dialects), "mean", "beside task arithmetic", "MSA"]
    lines = ["| " + " | ".join(headings) + " |", "|---|---|" + "---:|" * (len(headings) - 2)]
    own = [written(figures["own"][name]) for name in dialects]
    lines.append("| " + " | ".join(["each dialect's own model", "", *own, written(figures["own_mean"]), "", ""]) + " |")
    for row in ordered(figures):
        scale = f"best: {row['scale']}" if row["best"] else f"`{row['scale']}`" if row["scale"] else ""
        cells = [written(row["gains"][name]) for name in dialects]
        others = [written(row[name]) for name in ("mean", "beside")]
        lines.append(
            "| " + " | ".join([f"`{row['strategy']}`", scale, *cells, *others, written(row["gains"]["msa"])]) + " |"
        )
    return "\n".join(lines) + "\n"


def written(found: dict[str, float]) -> str:
    """A figure and its interval."""
    return f"{signed(found['value'])} ({signed(found['low'])} to {signed(found['high'])})"


def signed(value: float) -> str:
    """Two digits behind the point, with a sign unless all are 0."""
    text = f"{value:+.2f}".replace("-", "−")
    return "0.00" if text[1:] == "0.00" else text


def page(text: str, sets: Sequence[dict[str, Any]]) -> str:
    """The page with these figures between its marks, `<!-- four -->` … `<!-- end of four -->`."""
    for name, figures in zip(("four", "two"), sets, strict=True):
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, mark, rest = text.partition(start)
        _, closing, after = rest.partition(end)
        if not (mark and closing):
            raise ValueError(f"{PAGE.name} has no place for the figures of {name}: {start.strip()} … {end}")
        text = f"{before}{start}\n{table(figures)}\n{end}{after}"
    return text


def write_page() -> None:
    """Writes the figures into the page, and draws them."""
    sets = json.loads(RESULT.read_text())
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), sets), encoding="utf-8")
    PICTURE.write_text(draw(sets[0], ordered(sets[0])), encoding="utf-8")
