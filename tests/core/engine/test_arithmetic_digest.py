"""The name of a plan says on what arithmetic its bytes rest, wherever it is shown."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import MergeConfig, ModelMerger, merge

from tests.conftest import command_line

DIGEST = "modelmerger.engine.arithmetic_digest.arithmetic_digest"


def test_plan_manifest_and_report_have_one_digest(
    models: SimpleNamespace, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    file = models.folder / "merge.json"
    file.write_text(json.dumps(config))
    assert command_line("plan", file, "--no-trial", "--json") == 0
    printed = json.loads(capsys.readouterr().out)["digest"]
    asked = ModelMerger(MergeConfig(**config)).plan().digest
    report = merge(MergeConfig(**config))
    manifest = json.loads((models.output / "modelmerger.json").read_text())
    assert {printed, asked, report.plan, manifest["plan"]} == {asked}


def test_other_floats_make_another_plan(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ModelMerger(MergeConfig(**config)).plan()
    monkeypatch.setattr(DIGEST, lambda: "0" * 64)
    theirs = ModelMerger(MergeConfig(**config)).plan()
    assert ours.digest != theirs.digest
    assert {part for part in ours.decides if ours.decides[part] != theirs.decides[part]} == {"floating-point kernels"}


def test_what_was_begun_with_other_floats_is_begun_anew(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelmerger.run import Watch, run_merge

    def stop(name: str, path: Path) -> None:
        if name == "rename":
            raise KeyboardInterrupt

    settings, hooks = MergeConfig(**config).resolved()
    with pytest.raises(KeyboardInterrupt):
        run_merge(settings, hooks, watch=Watch(step=stop))
    with monkeypatch.context() as other:
        other.setattr(DIGEST, lambda: "0" * 64)
        with pytest.raises(KeyboardInterrupt):
            run_merge(settings, hooks, watch=Watch(step=stop))
    report = run_merge(settings, hooks)
    assert report.bytes_reused == 0
    assert any("another plan (config, inputs, plugins or arithmetic differ)" in str(note) for note in report.notes)
