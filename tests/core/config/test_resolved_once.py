"""A config is resolved once, and what it comes to is handed on: no stage asks again."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import tied
from modelmerger import MergeConfig, ModelMerger, merge
from modelmerger.config.resolve import resolve

__all__ = ["tied"]
BRIEF = {"metrics": ["perplexity"], "sample_size": 1}


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """`count()`: how often configs have been resolved since it was last asked, wherever that was called from."""
    MergeConfig, ModelMerger  # noqa: B018 (whoever resolves is imported by now)
    calls: list[str] = []

    def counted(*given: Any, **named: Any) -> Any:
        calls.append("resolve")
        return resolve(*given, **named)

    for name, module in list(sys.modules.items()):
        if name.startswith("modelmerger.") and getattr(module, "resolve", None) is resolve:
            monkeypatch.setattr(module, "resolve", counted)

    def asked() -> int:
        found = len(calls)
        calls.clear()
        return found

    return asked


@pytest.fixture
def given(tied: SimpleNamespace, tmp_path: Path) -> dict[str, Any]:
    models = [{"path": str(tied.a)}, {"path": str(tied.b)}]
    return {"strategy": "weighted", "models": models, "output_path": str(tmp_path / "merged"), "validation": BRIEF}


def test_in_python(given: dict[str, Any], count: Callable[[], int]) -> None:
    config = MergeConfig(**given)
    assert count() == 1

    merge(config)
    assert count() == 1

    merger = ModelMerger(MergeConfig(**given, options={"overwrite": True}))
    count()
    for use in (merger.plan, merger.check_compatibility, merger.load_models):
        use()
        assert count() == 1, use

    model = merger.merge()
    assert merger.validation_report is not None
    assert count() == 1

    merger.validate_merge(model)
    assert count() == 1


def test_on_the_command_line(
    given: dict[str, Any], count: Callable[[], int], command: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text(MergeConfig(**given).to_yaml())
    count()
    output = given["output_path"]
    for arguments, times in {
        ("check", path): 1,
        ("plan", path, "--no-trial"): 1,
        ("merge", path): 1,
        ("validate", output, "--config", path): 1,
        ("verify", output): 0,
        ("plugins",): 0,
    }.items():
        assert command(*arguments).status == 0
        assert count() == times, arguments


def test_merges_within_a_merge_are_resolved_with_it(given: dict[str, Any], count: Callable[[], int]) -> None:
    soup = {"strategy": "weighted", "models": given["models"]}
    nested = {**given, "models": [{"merge": soup}, {"path": "soup"}], "merges": {"soup": soup}}
    merger = ModelMerger(MergeConfig(**nested))
    assert count() == 1
    merger.merge()
    assert count() == 1
