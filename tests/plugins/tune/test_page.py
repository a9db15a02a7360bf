"""The page about a search: every number of the report, nothing that runs, and accessible."""

from importlib import resources
from pathlib import Path

from attrs import evolve
from modelmerger_plugins.tune.aside import Valued
from modelmerger_plugins.tune.honesty import Interval
from modelmerger_plugins.tune.page import heat, render
from modelmerger_plugins.tune.report import Judged, TuneReport
from modelmerger_plugins.tune.trials import Trial

from tests.plugins.report_page.browser import Browser, Page
from tests.plugins.report_page.conftest import chromium
from tests.plugins.report_page.test_page_in_browser import AXE, OPEN_ALL

__all__ = ["chromium"]

HOSTILE = "<script>window.owned = 1</script>"


def report(name: str = "gulf") -> TuneReport:
    splits = (name, "msa")
    trials = [
        Trial(
            i,
            (1.0 - 0.1 * i, 0.5),
            dict.fromkeys(splits, 4 - i / 10),
            0.5 - i / 10,
            0.0,
            0.5 - i / 10,
            1.0,
            (0.7 + i / 10,),
            dropped=i == 1,
        )
        for i in range(3)
    ]
    gain = Interval(0.2, 0.1, 0.3)
    judged = [
        Judged(
            who, dict.fromkeys(splits, 4.0), {name: 0.01 * i, "msa": 0.02 * i}, 0.3, gain if who != "tuned" else None
        )
        for i, who in enumerate(("start", "tuned", "base"))
    ]
    return TuneReport(
        method="gradient",
        metric="loss",
        coordinates=["models[0].weight: model.layers.0", "models[1].weight"],
        per={"models[0].weight": "layer", "models[1].weight": "model"},
        lines=dict.fromkeys(splits, 30),
        test_lines=dict.fromkeys(splits, 15),
        trials=trials,
        best=trials[-1],
        judged=judged,
        over=0.01,
        notes=[name],
        folder="out.tune",
        config={},
        texts={f"tune/{name}": "d1"},
        study="d2",
        line=[Valued("0.5 × start", 0.6), Valued("1 × start", 0.5)],
        worth=[Valued("model.layers.0", 0.1), Valued("models[1].weight", 0.0)],
        scale="matched",
        objectives=[f"loss of {name}", "mean loss"],
        pareto=[trials[0], trials[2]],
    )


def test_numbers_are_shaded_from_the_smallest_to_the_largest() -> None:
    found = heat(report())
    assert found.marks == ["models[0].weight", "models[1].weight"]
    assert found.rows == [("model.layers.0", [("0.800", 4), ("", 0)]), ("all tensors", [("", 0), ("0.500", 0)])]


def test_equal_reports_have_equal_pages_with_every_number() -> None:
    text = render(report()).decode()
    assert render(report()).decode() == text
    for shown in ("better than the start", "+0.2000", "+0.1000 to +0.3000", "0.800", "0.5 × start", "d2", "Numbers"):
        assert shown in text


def test_several_objectives_are_shown_with_the_steps_that_none_beats() -> None:
    text = render(report()).decode()
    assert "Two objectives against each other" in text
    for shown in ("loss of gulf", "mean loss", "0.5000", "0.7000", "2 (taken)", "0.3000", "0.9000"):
        assert shown in text
    assert "1 (taken)" not in text
    assert "a share 1 times that of &#39;matched&#39;" in text
    alone = evolve(report(), objectives=["worst loss"], pareto=[])
    assert "Two objectives" not in render(alone).decode()


def test_it_fits_is_accessible_and_runs_nothing(chromium: Browser, tmp_path: Path) -> None:
    axe = (resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    tab: Page = chromium.new_page()
    file = tmp_path / "tune.html"
    file.write_bytes(render(report(HOSTILE)))
    for width, scheme in ((390, "light"), (1280, "dark")):
        tab.open(file, width, scheme=scheme)
        assert tab.said == []
        assert tab.requested == [file.as_uri()]
        tab.value(OPEN_ALL)
        assert tab.value("document.documentElement.scrollWidth") <= width
        assert tab.value("window.owned") is None
        tab.value(axe + ";0")
        assert tab.value(AXE) == [], (width, scheme)
    assert HOSTILE in tab.value("document.body.innerText")
