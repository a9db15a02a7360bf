"""The page on choosing a strategy shows the figures that were measured, all of them, and its picture does too."""

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/choosing-a-strategy.md"
NO_MERGE = {"passthrough", "stack"}

sys.path.insert(0, str(ROOT / "benchmarks"))
try:
    import choice
finally:
    sys.path.pop(0)

SETS = json.loads((ROOT / "benchmarks/results/choosing.json").read_text())


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table whose first line begins so, without the two lines above the figures."""
    lines = PAGE.read_text().partition(heading)[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def number(value: float) -> str:
    """As the page writes a figure."""
    found = f"{value:+.2f}".replace("-", "−")
    return found.lstrip("+−") if float(f"{value:.2f}") == 0 else found


@pytest.mark.parametrize(
    ("figures", "heading"),
    [
        (SETS[0], "| strategy | λ | Egyptian | Gulf | Levantine |"),
        (SETS[1], "| strategy | λ | Egyptian | Gulf | mean |"),
    ],
    ids=["four", "two"],
)
def test_the_tables_are_the_figures(figures: dict[str, object], heading: str) -> None:
    own, *found = rows_of(heading)
    rows = figures["rows"]
    dialects = figures["dialects"]
    assert isinstance(rows, list) and isinstance(dialects, list)
    wanted = set()
    for row in rows:
        scale = f"best: {row['scale']}" if row["best"] else f"`{row['scale']}`" if row["scale"] else ""
        shown = [*(row["gains"][name] for name in dialects), row["mean"], row["beside"], row["gains"]["msa"]]
        cells = [f"{number(x['value'])} ({number(x['low'])} to {number(x['high'])})" for x in shown]
        wanted.add((f"`{row['strategy']}`", scale, *cells))
    assert {tuple(cells) for cells in found} == wanted
    assert len(found) == len(wanted)
    assert own[0] == "each dialect's own model"


def test_every_strategy_that_merges_siblings_is_measured_and_each_interval_holds_its_figure() -> None:
    built_in = {
        point.name for point in entry_points(group="modelmerger.strategies") if point.dist.name == "modelmerger"
    }
    assert {row["strategy"] for figures in SETS for row in figures["rows"]} == built_in - NO_MERGE
    for row in (row for figures in SETS for row in figures["rows"]):
        for found in (*row["gains"].values(), row["mean"], row["beside"]):
            assert found["low"] <= found["value"] <= found["high"]


def test_page_and_picture_are_what_the_script_makes_of_them() -> None:
    assert choice.page(PAGE.read_text(), SETS) == PAGE.read_text()
    assert choice.draw(SETS[0], choice.ordered(SETS[0])) == PAGE.with_suffix(".svg").read_text()


def test_what_the_page_says_of_them_is_so() -> None:
    four = SETS[0]["rows"]
    best = {row["strategy"]: row["beside"]["value"] for row in four if row["best"]}
    assert best["boost"] > 0.005 < best["tsv_m"]
    assert sum(abs(value) <= 0.02 for value in best.values()) >= len(best) - 2
    (default,) = [row for row in four if row["strategy"] == "task_arithmetic" and row["scale"] == "1.0"]
    assert default["mean"]["high"] < 0
    kept = [row["gains"]["maghrebi"]["value"] for row in four if row["strategy"] != "sequential"]
    assert max(kept) < 0.7 * SETS[0]["own"]["maghrebi"]["value"]
