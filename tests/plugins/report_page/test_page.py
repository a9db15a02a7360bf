"""The page as a file: what is in it, that it is the same each time, and that a validation leaves it beside the model."""

import json
import logging
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import arabic
from modelmerger import MergeConfig, ModelMerger, Traits, ValidationReport, hookimpl, merge, verify
from modelmerger_plugins import report_page
from modelmerger_plugins.pages.rendering import is_arabic, visible
from modelmerger_plugins.report_page.page import render

from tests.plugins.report_page import merges

__all__ = ["arabic"]


class Elements(HTMLParser):
    """Tags with their attributes; the text of each element that says its language."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.arabic: list[str] = []
        self._open: dict[str, str | None] = {}
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = dict(attrs)

    def handle_data(self, data: str) -> None:
        if self._open.get("lang") == "ar":
            assert self._open["dir"] == "rtl"
            self.arabic.append(data)

    def handle_endtag(self, _: str) -> None:
        self._open = {}


def test_it_is_one_file_that_runs_and_loads_nothing() -> None:
    page = render(merges.manifest(), merges.report())
    tags = Elements(page).found
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in tags}
    outward = {
        name
        for _, attributes in tags
        for name, value in attributes.items()
        if name in ("src", "style") or name.startswith("on") or (name == "href" and not (value or "").startswith("#"))
    }
    assert not outward
    (policy,) = [a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]+'; base-uri 'none'; form-action 'none'", policy or ""
    )
    assert b"@import" not in page
    assert b"url(" not in page


def test_equal_arguments_give_equal_bytes() -> None:
    assert render(merges.manifest(), merges.report()) == render(merges.manifest(), merges.report())


def test_what_plugins_measured_is_a_table_of_its_own() -> None:
    rows = {"lines": {"egyptian": 64, "code": 24}, "merged <model>": {"egyptian": 1.6649}}
    page = render({**merges.manifest(), "figures": {"tokens per word": rows}}, merges.report()).decode()
    section = page[page.index('id="figures"') : page.index("</section>", page.index('id="figures"'))]
    cells = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", section)
    assert cells == [
        "of", "egyptian", "code", "<bdi>lines</bdi>", "64", "24", "<bdi>merged &lt;model&gt;</bdi>", "1.665", ""
    ]  # fmt: skip
    assert 'id="figures"' not in render(merges.manifest(), merges.report()).decode()


def test_arabic_and_nothing_else_is_marked_as_arabic() -> None:
    page = Elements(render(merges.manifest(), merges.report()))
    texts = [sample.answer for sample in merges.report().samples] + [
        p for prompts in merges.PROMPTS.values() for p in prompts
    ]
    assert sorted(page.arabic) == sorted(texts)
    (root,) = [attributes for tag, attributes in page.found if tag == "html"]
    assert root == {"lang": "en", "dir": "ltr"}


@pytest.mark.parametrize(
    ("text", "arabic"),
    [("شلونك", True), ("شلونك today?", False), ("اليوم ok", True), ("hello", False), ("123 ؟", False), ("", False)],
)
def test_a_text_is_arabic_where_most_letters_are(text: str, arabic: bool) -> None:
    assert is_arabic(text) == arabic


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\nlines", "plain\nlines"),
        ("tab\tand\r\n", "tab and\n"),
        ("می‌خواهم", "می‌خواهم"),
        ("a\u202eb", "a\\u202eb"),
        ("\ud83d", "\\ud83d"),
        ("\0\x7f", "\\x00\\x7f"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_written_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_every_table_has_heads_with_a_scope_and_every_picture_its_numbers() -> None:
    page = Elements(render(merges.manifest(), merges.report()))
    heads = [attributes.get("scope") for tag, attributes in page.found if tag == "th"]
    assert set(heads) == {"row", "col", "rowgroup"}
    pictures = [a for tag, a in page.found if tag == "svg" and a.get("role") == "img"]
    assert len(pictures) == 3
    assert all(a["aria-label"] for a in pictures)
    text = render(merges.manifest(), merges.report()).decode()
    assert text.count("<summary>Numbers</summary>") == 3


def verdict(report: ValidationReport) -> str:
    page = render(merges.manifest(), report).decode()
    return " ".join(re.findall(r'class="verdict[^"]*"><strong>([^<]*)</strong><span>([^<]*)', page)[0])


def test_a_number_that_could_not_be_had_says_so_and_why() -> None:
    page = render(merges.manifest(), merges.report()).decode()
    assert page.count("not measured</span>") == 1
    assert "no answer has two tokens" in page


def test_the_verdict_comes_first() -> None:
    assert verdict(merges.report()) == "Not passed 1 of 2 thresholds crossed"
    assert verdict(merges.report(crossed=False)) == "Measured no thresholds were set, so nothing passes or fails"


def test_a_merge_of_nothing_but_defaults_has_a_page_too() -> None:
    bare = merges.manifest(observed={}, notes=[], counts={})
    bare["config"] = {"strategy": "weighted", "models": [{"path": "a"}, {"path": "b"}, {"path": "c"}]}
    empty = ValidationReport(directory="/models/merged", validators={}, settings={}, findings=[], samples=[])
    page = render(bare, empty).decode()
    assert "<title>merged: validation of a merge</title>" in page
    assert "geometry: true" in page
    older = {key: value for key, value in bare.items() if key != "observed"}
    assert render(older, empty).decode() == page


def test_a_validation_leaves_the_page_beside_the_model(arabic: SimpleNamespace, tmp_path: Path) -> None:
    brief = {"sample_size": 2, "max_new_tokens": 2, "metrics": ["perplexity"], "test_prompts": ["مرحبا"]}
    given = {"strategy": "weighted", "models": [{"path": str(arabic.a)}, {"path": str(arabic.b)}]}
    output = tmp_path / "merged"
    merge(MergeConfig(**given, output_path=str(output), validation=brief))
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Distance from the merged model" in page
    assert "مرحبا" in page
    verify(output)
    later = ModelMerger(
        MergeConfig(**given, output_path=str(tmp_path / "bare"), options={"geometry": False}, validation=brief)
    )
    later.merge()
    assert "Nothing was collected" in (tmp_path / "bare" / "report.html").read_text(encoding="utf-8")


def test_the_plots_can_be_made_later_if_the_merge_collected_what_they_show(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    merge(MergeConfig(**config, options={"geometry": True}))
    manifest = json.loads((models.output / "modelmerger.json").read_bytes())
    empty = ValidationReport(directory=str(models.output), validators={}, settings={}, findings=[], samples=[])
    (page,) = report_page.write_companions(manifest, empty).values()
    assert b"Distance from the merged model" in page


class Mean:
    """A strategy that is not installed."""

    traits = Traits(models=(2, None))

    @hookimpl
    def find_coefficients(self, weights: list[float]) -> list[float]:
        return [1 / len(weights)] * len(weights)


def test_a_plugin_that_is_not_installed_is_named_by_its_digest(models: SimpleNamespace, config: dict[str, Any]) -> None:
    merge(MergeConfig(**{**config, "strategy": Mean()}))
    manifest = json.loads((models.output / "modelmerger.json").read_bytes())
    (digest,) = [plugin["digest"] for plugin in manifest["plugins"] if plugin["name"] == "Mean"]
    empty = ValidationReport(directory=str(models.output), validators={}, settings={}, findings=[], samples=[])
    assert f"Mean (this process blake3 {digest[:12]})" in render(manifest, empty).decode()


def test_without_jinja_there_is_a_warning_and_no_page(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for module in ("report_page.page", "pages.rendering"):
        monkeypatch.delitem(sys.modules, f"modelmerger_plugins.{module}", raising=False)
    with caplog.at_level(logging.WARNING, "modelmerger"):
        assert report_page.write_companions(merges.manifest(), merges.report()) == {}
    assert "Install modelmerger[report]" in caplog.text
