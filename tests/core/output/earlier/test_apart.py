"""What is written lies apart from what is read, by whatever name the one or the other is called."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import directory_state
from modelmerger import MergeConfig, ModelMerger, OutputError, merge
from modelmerger.output.earlier.apart import check_apart, check_in_no_output, check_scratch


def test_an_output_in_an_input_that_has_two_names_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a bind mount gives a folder a second one."""
    (tmp_path / "model").mkdir()
    (tmp_path / "mounted").mkdir()
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: stat(str(path).replace("mounted", "model"), **more))

    for output in ("mounted", "mounted/new"):
        with pytest.raises(OutputError, match=r"is, contains or lies in the input 'a'"):
            check_apart(tmp_path / output, {"a": [str(tmp_path / "model")]})
    check_apart(tmp_path / "beside", {"a": [str(tmp_path / "model")]})


@pytest.mark.parametrize("folder", ["a", "a/inner", "link"])
def test_an_offload_folder_in_an_input_is_refused_and_the_input_untouched(
    models: SimpleNamespace, config: dict[str, Any], command: Callable[..., SimpleNamespace], folder: str
) -> None:
    """A14"""
    (models.folder / "link").symlink_to("a")
    given = {**config, "options": {"offload_folder": str(models.folder / folder)}}
    before, changed = directory_state(models.a), models.a.stat().st_mtime_ns
    path = models.folder / "merge.json"
    path.write_text(json.dumps(given))

    with pytest.raises(OutputError, match="offload_folder is or lies in the input"):
        ModelMerger(MergeConfig(**given)).merge()
    for name in ("check", "merge"):
        result = command(name, path)
        assert (result.status, "offload_folder is or lies in the input 'a'" in result.err) == (4, True)

    assert (directory_state(models.a), models.a.stat().st_mtime_ns) == (before, changed)
    assert not models.output.exists()


def test_an_offload_folder_around_an_input_is_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    check_scratch(str(tmp_path), {"a": [str(tmp_path / "model")]})
    check_scratch(None, {"a": [str(tmp_path / "model")]})


@pytest.mark.parametrize("inner", ["new", "sub/new", "link/new"])
def test_an_output_in_an_earlier_output_is_refused(models: SimpleNamespace, config: dict[str, Any], inner: str) -> None:
    """A14. When the outer one is overwritten, nobody would think of what lies in it."""
    merge(MergeConfig(**config))
    outer = models.output
    (outer.parent / "link").symlink_to(outer)
    output = outer.parent / inner if inner.startswith("link") else outer / inner
    before = directory_state(outer)

    for options in ({}, {"overwrite": True}):
        told = MergeConfig(**{**config, "output_path": str(output), "options": options})
        with pytest.raises(OutputError, match=rf"lies in {outer}, which a merge wrote\."):
            merge(told)
    assert directory_state(outer) == before


def test_an_output_in_the_staging_of_another_is_refused_and_other_folders_are_free(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="where another merge is at work"):
        check_in_no_output(tmp_path / ".out.modelmerger" / "new")
    (tmp_path / "modelmerger.json").write_text("{}")  # no manifest
    check_in_no_output(tmp_path / "sub" / "new")
