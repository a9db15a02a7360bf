"""The page in a real browser: it fits, it is accessible in both colour schemes, it asks for nothing, and no hostile text is more than text."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from modelmerger_plugins.diff.differences import Differences, Group
from modelmerger_plugins.diff.documents import Changed
from modelmerger_plugins.diff.page import render as render_diff
from modelmerger_plugins.report_page.compared import axes_of, compare_merges
from modelmerger_plugins.report_page.compared_page import render as render_comparison
from modelmerger_plugins.report_page.page import render

from tests.plugins.report_page import merges, test_compared
from tests.plugins.report_page.browser import Page

VIEWS = [(390, "light"), (1280, "dark"), (390, "dark"), (1280, "light")]
LOOKED_AT = {"full": VIEWS, "hostile": VIEWS[:2]}
"""What is looked at of pages; of others, which have the same styles, one view is enough."""
AXE = """
axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations.map(
  one => one.id + ": " + one.help + ": " + one.nodes.map(node => node.html.slice(0, 200)).join(" | ")))
"""
OPEN_ALL = "document.querySelectorAll('details').forEach(one => { one.open = true })"
PAGES: dict[str, tuple[dict[str, Any], Any]] = {
    "full": (merges.manifest(), merges.report()),
    "without a base or sources": (
        merges.manifest(base=False),
        merges.report(models=("merged",), crossed=False, samples=False),
    ),
    "nothing collected": (merges.manifest(observed={}, notes=[]), merges.report(crossed=False)),
    "hostile": (merges.hostile_manifest(), merges.hostile_report()),
}


@pytest.mark.parametrize("name", PAGES)
def test_it_fits_and_is_accessible_in_both_schemes_at_both_widths(name: str, tab: Page, page_file: Path) -> None:
    axe = (resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    page_file.write_bytes(render(*PAGES[name]))
    for width, scheme in LOOKED_AT.get(name, VIEWS[:1]):
        tab.open(page_file, width, scheme=scheme)
        assert tab.said == []
        assert tab.requested == [page_file.as_uri()]
        for opened in ("", OPEN_ALL):
            tab.value(opened)
            assert tab.value("document.documentElement.scrollWidth") <= width
        tab.value(axe + ";0")
        assert tab.value(AXE) == [], (width, scheme)


def assert_sound(tab: Page, page_file: Path, views: Sequence[tuple[int, str]]) -> None:
    """The page fits, is accessible with everything opened, loads nothing, and runs nothing."""
    axe = (resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    for width, scheme in views:
        tab.open(page_file, width, scheme=scheme)
        assert tab.said == []
        assert tab.requested == [page_file.as_uri()]
        tab.value(OPEN_ALL)
        assert tab.value("document.documentElement.scrollWidth") <= width
        tab.value(axe + ";0")
        assert tab.value(AXE) == [], (width, scheme)
    assert tab.value("window.owned") is None


def test_the_page_of_a_diff_fits_and_is_accessible(tab: Page, page_file: Path) -> None:
    hostile = merges.HOSTILE[0]
    changed = [
        {
            "name": f"model.layers.{i}.{hostile}",
            "elements": 10,
            "changed": 3,
            "relative": 0.1 * i,
            "largest": 1.0,
            "dtypes": ["BF16", "F32"],
        }
        for i in range(12)
    ]
    groups = [Group(f"model.layers.{i}", 4, 2, 0.1 * i) for i in range(12)]
    documents = [Changed("config.json: x", hostile, None), Changed("tokenizer.json", "a", "b", True)]
    shapes = {"w" * 200: ((1, 2), (3,))}
    page_file.write_bytes(
        render_diff(
            Differences("a", hostile, "numbers", 48, 12, 0.3, 0.9, groups, changed, ["x"], [hostile], shapes, documents)
        )
    )
    assert_sound(tab, page_file, VIEWS[:2])


@pytest.mark.parametrize("kind", ["plain", "hostile"])
def test_the_page_of_a_comparison_fits_and_is_accessible(kind: str, tab: Page, page_file: Path, tmp_path: Path) -> None:
    if kind == "hostile":
        page_file.write_bytes(test_compared.hostile(tmp_path))
    else:
        written = [test_compared.write(tmp_path / name, *values) for name, values in test_compared.VALUES.items()]
        found = compare_merges(written)
        page_file.write_bytes(render_comparison(found, axes_of(found, None)))
    assert_sound(tab, page_file, VIEWS if kind == "plain" else VIEWS[:2])


def test_each_scheme_has_colours_of_its_own(tab: Page, page_file: Path) -> None:
    page_file.write_bytes(render(*PAGES["full"]))
    seen = set()
    for _, scheme in VIEWS[:2]:
        tab.open(page_file, 1280, scheme=scheme)
        seen.add(tab.value("getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2


def test_hostile_text_runs_nothing_loads_nothing_and_is_shown(tab: Page, page_file: Path) -> None:
    page_file.write_bytes(render(*PAGES["hostile"]))
    tab.open(page_file, 1280)
    assert tab.value("window.owned") is None
    assert tab.said == []
    assert tab.requested == [page_file.as_uri()]
    assert (
        tab.value(
            "document.querySelectorAll('script, iframe, object, embed, link, base, img, form, [onerror], [onload]').length"
        )
        == 0
    )
    assert tab.value("document.querySelectorAll('style').length") == 1
    tab.value(OPEN_ALL)
    text = tab.value("document.body.innerText")
    for hostile in merges.HOSTILE:
        assert merges.as_shown(hostile) in text, json.dumps(hostile)


def test_the_policy_refuses_what_would_get_through_the_escaping(tab: Page, page_file: Path) -> None:
    """The page with markup put into it, as if escaping had failed: no script runs, no style is taken, nothing is loaded."""
    page = render(*PAGES["full"]).decode()
    injected = "<script>window.owned = 1</script><style>body { opacity: 0.5 }</style><img src='http://127.0.0.1:9/x' onerror='window.owned = 1'>"
    page_file.write_text(page.replace("</h1>", f"</h1>{injected}"), encoding="utf-8")
    tab.open(page_file, 1280)
    assert tab.value("window.owned") is None
    assert tab.value("getComputedStyle(document.body).opacity") == "1"
    refused = [message for message in tab.said if "Content Security Policy" in message]
    assert len(refused) >= 3
