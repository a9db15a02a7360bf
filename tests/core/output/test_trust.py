"""What is staged is gone on with and published only if it is this user's, and what this merge made."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from modelmerger import OutputError
from modelmerger.output import staging_directory
from modelmerger.output.parent_folder import staging_path
from modelmerger.output.publishing import publish
from modelmerger.output.staging import Staging
from modelmerger.output.staging_directory import StagingDirectory
from modelmerger.values.options.core import CoreOptions

from tests.core.output.staged import LAYOUT, stage

STRANGER = 4711
OLD = CoreOptions(overwrite=True)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


def refused(target: Path, reason: str) -> None:
    with pytest.raises(OutputError, match=reason) as error, Staging(target, "plan", LAYOUT):
        pass
    assert error.value.exit_status == 4
    assert not target.exists()


@needs_root
@pytest.mark.parametrize("entry", [".", "journal", "run", "model", "model/weights"])
def test_what_somebody_else_has_made_is_refused(target: Path, entry: str) -> None:
    """A18"""
    stage(target, [0])
    os.chown(staging_path(target) / entry, STRANGER, STRANGER)
    refused(target, f"belongs to user {STRANGER}, and this merge to 0, so what is staged there is not trusted")


@needs_root
def test_an_empty_directory_of_somebody_else_is_refused(target: Path) -> None:
    """A18"""
    staging_path(target).mkdir()
    os.chown(staging_path(target), STRANGER, STRANGER)
    refused(target, f"belongs to user {STRANGER}")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_may_write_to_is_refused(target: Path, mode: int) -> None:
    """A18"""
    stage(target, [0])
    staging_path(target).chmod(mode)
    refused(target, "may be written to by others")


def test_nobody_else_can_look_into_what_is_staged(target: Path) -> None:
    """A18"""
    before = os.umask(0)
    try:
        with StagingDirectory(target) as directory:
            assert directory.root.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_a_file_system_may_call_this_user_otherwise(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A18: As NFS does with root: what counts is whose what this process makes there is."""
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with Staging(target, "plan", LAYOUT):
        pass
    monkeypatch.setattr(staging_directory, "owner_of_new", lambda _: STRANGER)
    refused(target, f"belongs to user {os.getuid()}, and this merge to {STRANGER}")


def _another_merge(target: Path) -> None:
    root = staging_path(target)
    root.rename(root.with_name("moved"))
    (root / "model").mkdir(parents=True)


def _another_tree(target: Path) -> None:
    tree = staging_path(target) / "model"
    tree.rename(tree.with_name("moved"))
    tree.mkdir()


def _another_file(target: Path) -> None:
    file = staging_path(target) / "model/weights"
    content = file.read_bytes()
    file.rename(file.with_name("moved"))
    file.write_bytes(content)


def _another_document(target: Path) -> None:
    file = staging_path(target) / "model/licenses/a/LICENSE"
    file.rename(file.with_name("moved"))
    file.write_bytes(b"all rights reserved")


def _no_file(target: Path) -> None:
    (staging_path(target) / "model/empty").unlink()


@pytest.mark.parametrize("replace", [_another_merge, _another_tree, _another_file, _another_document, _no_file])
def test_what_another_has_put_in_the_place_gets_no_name(target: Path, replace: Callable[[Path], None]) -> None:
    """A19"""
    with Staging(target, "plan", LAYOUT) as staging:
        staging.write_document("licenses/a/LICENSE", [b"as you like"])
        replace(target)
        with pytest.raises(OutputError, match="was replaced while the merge ran"):
            publish(staging, CoreOptions(), lambda *_: None)
    assert not target.exists()


def test_a_tree_that_is_exchanged_in_the_last_instant_loses_the_name_again(target: Path) -> None:
    """A19"""

    def late(name: str, _: Path) -> None:
        if name == "rename":
            _another_tree(target)

    reason = pytest.raises(OutputError, match="was replaced while the merge ran")
    with Staging(target, "plan", LAYOUT) as staging, reason:
        publish(staging, CoreOptions(), late)
    assert not target.exists()
    assert (staging_path(target) / "model").is_dir()
