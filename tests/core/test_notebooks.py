"""What is seen in a notebook and at a Python prompt: short reprs, HTML in which all is text, and a bar that can be off."""

import io
import sys
from html.parser import HTMLParser
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from conftest import write_model
from inputs.tiny_models import arabic
from modelmerger import Checkpoint, Finding, MergeConfig, ModelMerger, ValidationReport, Watch, merge

__all__ = ["arabic"]
HOSTILE = "<script>alert(1)</script>&\u202e'\""


class Text(HTMLParser):
    """The tags and the text of a piece of HTML."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def validated() -> ValidationReport:
    found = Finding(metric=f"m {HOSTILE}", value=1.5, evidence="", model="merged")
    return ValidationReport(directory="/x", validators={}, settings={}, findings=[found], samples=[])


def test_reports_plans_and_checkpoints_are_short_and_their_html_is_text(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    config["models"][0]["name"] = HOSTILE
    write_model(models.a, {**models.tensors["a"], HOSTILE: models.tensors["a"]["model.norm.weight"].clone()})
    write_model(models.b, {**models.tensors["b"], HOSTILE: models.tensors["b"]["model.norm.weight"].clone()})
    merger = ModelMerger(MergeConfig(**config))
    plan = merger.plan()
    report = merge(MergeConfig(**config))
    checkpoint: Checkpoint = merger.load_models()[HOSTILE]
    for shown in (plan, report, checkpoint, validated()):
        assert len(repr(shown)) < 300
        assert repr(shown).startswith(f"<{type(shown).__name__}")
        assert "\u202e" not in repr(shown)
        found = Text(shown._repr_html_())
        assert found.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
        assert "<script>" in found.text
        assert "\\u202e" in found.text
    assert "weighted of 2 models" in repr(plan)
    assert "merged 2 models (weighted) into " in repr(report)
    assert "no threshold set" in repr(validated())
    assert "8 tensors" in repr(checkpoint)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = type("ZMQInteractiveShell", (), {})()
    module = ModuleType("IPython")
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)


@pytest.mark.parametrize("seen", ["terminal", "pipe"])
def test_a_bar_is_shown_where_somebody_sees_it_unless_it_is_off(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    config["options"] = {"overwrite": True}

    def printed(**asked: Any) -> str:
        screen = Screen() if seen == "terminal" else io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", screen)
            merge(MergeConfig(**config), **asked)
        return screen.getvalue()

    assert ("merging" in printed()) == (seen == "terminal")
    assert printed(progress=False) == ""
    called = []
    assert printed(watch=Watch(progress=lambda done, total: called.append((done, total)))) == ""
    assert called[-1][0] == called[-1][1] > 0


def test_a_merge_into_memory_counts_its_bytes_too(arabic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    class Bar:
        def __enter__(self) -> Any:
            return lambda done, total: seen.append((done, total))

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("modelmerger.merger.show_progress", lambda _: Bar())
    merger = ModelMerger(MergeConfig("weighted", [{"path": str(arabic.base)}]))
    merger.merge(progress=False)
    assert seen == []
    merger.merge()
    assert seen[-1][0] == seen[-1][1] > 0
    assert merger.merge_report is not None
    assert merger.merge_report.in_memory


def test_a_notebook_is_a_place_to_show_a_bar_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelmerger.progress import _somebody_sees_it

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not _somebody_sees_it()
    in_a_notebook(monkeypatch)
    assert _somebody_sees_it()
