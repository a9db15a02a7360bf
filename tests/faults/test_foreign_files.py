"""`overwrite` deletes nothing that no merge wrote, at any step at which a merge may be killed."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import directory_state
from modelmerger import MergeConfig, OutputError, Watch, merge, verify

from tests.faults.conftest import FEW, MANY
from tests.faults.stopping import Steps, killed_merge, spread, staging_path

MINE = {"merged-Q4_K_M.gguf": b"GGUF", "notes/today.md": b"mine", ".hidden": b"", "licenses/mine": b"my own"}


def put(output: Path) -> None:
    for name, content in MINE.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(content)


def mine(output: Path) -> dict[str, bytes]:
    return {name: content for name, content in (directory_state(output) or {}).items() if name in MINE}


@pytest.fixture
def theirs(sharded: SimpleNamespace) -> SimpleNamespace:
    """An output with files of somebody in it."""
    merge(MergeConfig(**sharded.config(MANY, weight=0.7)))
    put(sharded.output)
    return sharded


def test_an_output_with_files_of_somebody_is_refused(
    theirs: SimpleNamespace, config_file: Callable[..., Path], refused: Callable[..., str], unread: Callable[[], bool]
) -> None:
    """A13"""
    before = directory_state(theirs.folder)
    path = config_file()

    err = refused(4, "merge", path, "--overwrite")

    assert err == (
        f"error: {theirs.output}/.hidden: was put there by no merge (and 3 more), so nothing is overwritten. "
        "Move it away, or give keep_extra: true (--keep-extra): then it is in the new output too.\n"
    )
    assert {**(before or {}), "config.json": path.read_bytes()} == directory_state(theirs.folder)
    assert unread()


def test_a_file_of_a_merge_that_somebody_changed_is_not_overwritten(
    sharded: SimpleNamespace, config_file: Callable[..., Path], refused: Callable[..., str]
) -> None:
    """A13"""
    merge(MergeConfig(**sharded.config()))
    (sharded.output / "config.json").write_text('{"eos_token_id": 7}')
    before = directory_state(sharded.output)

    for flags in (["--overwrite"], ["--overwrite", "--keep-extra"]):
        err = refused(4, "merge", config_file(MANY), *flags)
        assert f"{sharded.output}/config.json: was changed since the merge wrote it" in err
    assert directory_state(sharded.output) == before


def test_a_manifest_that_lists_no_weights_makes_nothing_ours(
    sharded: SimpleNamespace, config_file: Callable[..., Path], refused: Callable[..., str]
) -> None:
    """A13"""
    sharded.output.mkdir()
    (sharded.output / "thesis.tex").write_text("years of work")
    manifest = {"schema": 1, "plan": "x", "files": {}, "companions": ["thesis.tex"]}
    (sharded.output / "modelmerger.json").write_text(json.dumps(manifest))
    before = directory_state(sharded.output)

    assert "no merge wrote it" in refused(4, "merge", config_file(overwrite=True))
    assert "no merge wrote it" in refused(4, "merge", config_file(overwrite=True), "--keep-extra")
    assert directory_state(sharded.output) == before


def test_kept_files_are_in_the_new_output_which_lists_them_as_not_its_own(
    theirs: SimpleNamespace, command: Callable[..., SimpleNamespace], config_file: Callable[..., Path]
) -> None:
    """A12"""
    inode = (theirs.output / "merged-Q4_K_M.gguf").stat().st_ino

    found = command("merge", config_file(FEW), "--overwrite", "--keep-extra")

    assert found.status == 0, found.err
    assert mine(theirs.output) == MINE
    assert (theirs.output / "merged-Q4_K_M.gguf").stat().st_ino == inode
    manifest = json.loads((theirs.output / "modelmerger.json").read_text())
    assert manifest["extra"] == [".hidden", "licenses/mine", "merged-Q4_K_M.gguf", "notes"]
    assert not {*MINE} & {*manifest["files"]}
    assert command("verify", theirs.output).status == 0
    (theirs.output / "notes" / "more.md").touch()
    assert command("verify", theirs.output).status == 0
    (theirs.output / "stranger").touch()
    assert "stranger: is not part of the merge" in command("verify", theirs.output).err
    (theirs.output / "stranger").unlink()

    assert command("merge", config_file(MANY), "--overwrite").status == 4  # they are not ours now either
    assert command("merge", config_file(MANY), "--overwrite", "--keep-extra").status == 0
    assert mine(theirs.output) == MINE
    assert sorted(os.listdir(theirs.folder)) == ["a", "b", "config.json", "merged"]


def test_names_of_any_bytes_are_kept(theirs: SimpleNamespace) -> None:
    """B17"""
    name = os.fsdecode(b"\xff\n\xe2\x80\xae notes")
    (theirs.output / name).write_text("mine")

    merge(MergeConfig(**theirs.config(overwrite=True, keep_extra=True)))

    assert (theirs.output / name).read_text() == "mine"
    verify(theirs.output)
    with pytest.raises(OutputError):
        merge(MergeConfig(**theirs.config(MANY, overwrite=True)))
    merge(MergeConfig(**theirs.config(MANY, overwrite=True, keep_extra=True)))
    assert (theirs.output / name).read_text() == "mine"


def test_what_is_in_the_way_of_the_new_model_is_refused(theirs: SimpleNamespace) -> None:
    (theirs.output / "model-00001-of-00002.safetensors").write_text("mine")
    before = directory_state(theirs.output)

    with pytest.raises(OutputError, match=r"model-00001-of-00002\.safetensors: is in the new model too"):
        merge(MergeConfig(**theirs.config(FEW, overwrite=True, keep_extra=True)))
    assert directory_state(theirs.output) == before

    (theirs.output / "model-00001-of-00002.safetensors").unlink()
    report = merge(MergeConfig(**theirs.config(FEW, overwrite=True, keep_extra=True)))
    assert report.bytes_reused == report.bytes_written


def keep_everywhere(theirs: SimpleNamespace, most: int) -> None:
    """Kills merges at up to `most` steps: the output has somebody's files after each, and after the next run."""
    old_copy = theirs.folder / "old"
    shutil.copytree(theirs.output, old_copy)
    old = directory_state(theirs.output)
    config = theirs.config(FEW, overwrite=True, keep_extra=True)
    steps = Steps()
    merge(MergeConfig(**config), Watch(step=steps))
    new = directory_state(theirs.output)
    assert mine(theirs.output) == MINE
    assert new != old

    for at in spread(len(steps.seen), most):
        for next_config in (config, theirs.config(MANY, weight=0.2, overwrite=True, keep_extra=True)):
            shutil.rmtree(theirs.output)
            shutil.copytree(old_copy, theirs.output)

            assert killed_merge(config, at) == -signal.SIGKILL

            where = f"killed at step {at}, {steps.seen[at - 1]}"
            assert directory_state(theirs.output) in (old, new), where
            merge(MergeConfig(**next_config))
            assert mine(theirs.output) == MINE, where
            verify(theirs.output)
            assert sorted(os.listdir(theirs.folder)) == ["a", "b", "merged", "old"], where


def test_a_kill_loses_none_of_them(theirs: SimpleNamespace) -> None:
    """A1, A12"""
    keep_everywhere(theirs, most=8)


@pytest.mark.long
def test_a_kill_at_any_step_loses_none_of_them(theirs: SimpleNamespace) -> None:
    """A1, A12"""
    keep_everywhere(theirs, most=10_000)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("moment", [("fsync", "model"), ("rename", "merged")])
def test_what_comes_in_while_the_merge_runs_is_not_deleted(
    sharded: SimpleNamespace, keep: bool, moment: tuple[str, str]
) -> None:
    """A13: before the last look, and between that and the exchange."""
    merge(MergeConfig(**sharded.config()))
    late = sharded.output / "late.txt"

    def come(name: str, path: Path) -> None:
        if (name, path.name) == moment:
            late.write_text("mine")

    with pytest.raises(OutputError, match=r"late\.txt: came into the output while the merge ran"):
        merge(MergeConfig(**sharded.config(MANY, overwrite=True, keep_extra=keep)), Watch(step=come))

    assert late.read_text() == "mine"
    verify_but(sharded.output, "late.txt")


def test_what_comes_in_while_the_old_output_is_removed_is_found_beside_the_new_one(sharded: SimpleNamespace) -> None:
    """A13"""
    merge(MergeConfig(**sharded.config()))

    def come(name: str, path: Path) -> None:
        if (name, path.name) == ("remove", "model") and (path / "modelmerger.json").exists():
            (path / "late.txt").write_text("mine")

    report = merge(MergeConfig(**sharded.config(MANY, overwrite=True)), Watch(step=come))

    left = sharded.folder / "merged.left"
    assert (left / "late.txt").read_text() == "mine"
    assert any(str(left) in str(note) and note.severity == "warning" for note in report.notes)
    verify(sharded.output)
    assert not staging_path(sharded.output).exists()


def verify_but(output: Path, name: str) -> None:
    (output / name).unlink()
    verify(output)


def plan_of(config: dict[str, Any]) -> str:
    from modelmerger import ModelMerger

    return ModelMerger(MergeConfig(**config)).plan().digest


def test_keep_extra_decides_nothing_of_what_is_merged(theirs: SimpleNamespace) -> None:
    """A7: a merge that was refused because of them goes on once they may be kept."""
    plain, keeping = theirs.config(overwrite=True), theirs.config(overwrite=True, keep_extra=True)
    assert plan_of(plain) == plan_of(keeping)
    shutil.rmtree(theirs.output)
    merge(MergeConfig(**theirs.config(MANY, weight=0.7)))
    came = theirs.output / "late.txt"

    def come(name: str, _: Path) -> None:
        if name == "fsync":
            came.write_text("mine")

    with pytest.raises(OutputError):
        merge(MergeConfig(**plain), Watch(step=come))

    report = merge(MergeConfig(**keeping))

    assert report.bytes_reused == report.bytes_written > 0
    assert came.read_text() == "mine"
