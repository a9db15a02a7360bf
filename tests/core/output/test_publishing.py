import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import directory_state
from modelmerger import Layout, OutputError
from modelmerger.output import system
from modelmerger.output.digests import digest_of_bytes
from modelmerger.output.manifest import FILE, file_entry
from modelmerger.output.parent_folder import staging_path
from modelmerger.output.publishing import (
    check_output,
    check_room,
    extra_entries,
    finish_earlier,
    give_name,
    publish,
)
from modelmerger.output.staging import Staging
from modelmerger.output.steps import Step, no_step
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.work.block_record import Piece

EMPTY = Layout("test", [])


NEW, OLD = CoreOptions(), CoreOptions(overwrite=True)
KEEPING = CoreOptions(overwrite=True, keep_extra=True)
WEIGHTS = b"numbers"
FILES = {"model.safetensors": file_entry([Piece(len(WEIGHTS), digest_of_bytes(WEIGHTS), "w")])}


def manifest(plan: str, **more: object) -> bytes:
    return json.dumps({"schema": 1, "plan": plan, "files": FILES, "companions": ["README.md"]} | more).encode()


def output(path: Path, plan: str) -> Path:
    path.mkdir()
    (path / FILE).write_bytes(manifest(plan))
    return path


def published(target: Path, plan: str, options: CoreOptions = NEW, step: Step = no_step) -> list[Any]:
    with Staging(target, plan, EMPTY, step) as staging:
        extra = extra_entries(target, options)
        staging.write_document(FILE, [manifest(plan, extra=extra) if extra else manifest(plan)])
        staging.keep(extra)
        return publish(staging, options, step)


def test_a_tree_gets_the_name_and_nothing_else_is_left(target: Path) -> None:
    assert published(target, "one") == []

    assert directory_state(target) == {FILE: manifest("one")}
    assert os.listdir(target.parent) == ["merged"]


def test_an_old_output_is_exchanged(target: Path) -> None:
    output(target, "old")
    (target / "model.safetensors").write_bytes(WEIGHTS)

    assert published(target, "new", OLD) == []

    assert directory_state(target) == {FILE: manifest("new")}
    assert os.listdir(target.parent) == ["merged"]


def test_a_name_that_is_not_on_the_disk_is_taken_back(target: Path) -> None:
    """The fsync of the parent fails: the old state comes back, absent or whole."""

    def step(name: str, path: Path) -> None:
        if (name, path) == ("fsync", target.parent):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Staging(target, "new", EMPTY) as staging:
        staging.write_document(FILE, [manifest("new")])
        with pytest.raises(OSError, match="Input/output"):
            give_name(staging, False, step)
        assert directory_state(target) is None
        assert directory_state(staging.tree) == {FILE: manifest("new")}
        output(target, "old")
        with pytest.raises(OSError, match="Input/output"):
            give_name(staging, True, step)
        assert directory_state(target) == {FILE: manifest("old")}
        assert directory_state(staging.tree) == {FILE: manifest("new")}


def test_without_an_exchange_overwrite_is_refused_and_the_old_output_stays(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(system, "_renameat2", unsupported)
    output(target, "old")

    with pytest.raises(OutputError, match="cannot be overwritten in one step on this file system"):
        published(target, "new", OLD)

    assert directory_state(target) == {FILE: manifest("old")}
    assert published(target.parent / "elsewhere", "new") == []


def leave(target: Path, plan: str, inode: int | None, *, journal: bool = True) -> Path:
    """A staging directory as a kill leaves it."""
    with Staging(target, plan, EMPTY) as staging:
        if inode is not None:
            staging.mark()
    path = staging.root / "journal"
    if inode is not None:
        path.write_text(path.read_text().replace(str((staging.root / "model").stat().st_ino), str(inode)))
    if not journal:
        path.unlink()
        (staging.root / "run").unlink()
        (staging.root / "model").rmdir()
    return staging.root


@pytest.mark.parametrize(
    ("plan", "is_the_tree", "journal", "overwrite", "finished"),
    [
        ("this", True, True, False, True),
        ("this", True, True, True, True),
        ("this", False, True, True, False),
        ("another", True, True, True, False),
        ("this", True, False, False, True),
        ("this", True, False, True, False),
    ],
    ids=[
        "killed",
        "killed in overwrite",
        "not renamed",
        "another plan",
        "all but removed",
        "all but removed or just made",
    ],
)
def test_what_was_published_before_a_kill_is_told_from_what_was_not(
    target: Path, plan: str, is_the_tree: bool, journal: bool, overwrite: bool, finished: bool
) -> None:
    output(target, "this")
    root = leave(target, plan, target.stat().st_ino if is_the_tree else 1, journal=journal)

    found = finish_earlier(target, lambda: "this", overwrite, no_step)

    assert (found is not None) == finished
    assert root.exists() != finished
    assert directory_state(target) == {FILE: manifest("this")}


@pytest.mark.parametrize("case", ["no target", "a link", "another plan's output", "no staging directory", "not ours"])
def test_nothing_is_removed_where_nothing_was_finished(target: Path, case: str) -> None:
    output(target, "other" if case == "another plan's output" else "this")
    root = leave(target, "this", target.stat().st_ino)
    if case == "no target":
        target.rename(target.parent / "moved")
    elif case == "a link":
        target.rename(target.parent / "moved")
        target.symlink_to(target.parent / "moved")
    elif case == "no staging directory":
        root.rename(target.parent / "moved")
    elif case == "not ours":
        (root / "journal").write_text("Dear diary\n")
    before = directory_state(target.parent)

    assert finish_earlier(target, lambda: "this", False, no_step) is None
    assert directory_state(target.parent) == before


def test_a_merge_that_clears_up_by_itself_was_not_stopped(target: Path) -> None:
    output(target, "this")
    root = leave(target, "this", target.stat().st_ino)

    def cleared_meanwhile() -> str:
        root.rename(target.parent / "moved")
        return "this"

    assert finish_earlier(target, cleared_meanwhile, False, no_step) is None
    assert not root.exists()


def test_a_merge_at_work_is_not_finished_by_another(target: Path) -> None:
    output(target, "this")
    root = leave(target, "this", target.stat().st_ino)
    with Staging(target, "this", EMPTY), pytest.raises(OutputError, match="by another merge"):
        finish_earlier(target, lambda: "this", False, no_step)
    assert root.exists()


def test_room_is_counted_in_bytes_that_this_user_may_take(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "statvfs", lambda _: SimpleNamespace(f_bavail=2, f_bfree=9, f_frsize=1 << 20, f_bsize=1 << 30)
    )

    check_room(target, 2 << 20)
    with pytest.raises(OutputError, match=r"2\.1 MiB are needed and 2\.0 MiB are free"):
        check_room(target, (2 << 20) + 100_000)


def test_a_nul_in_the_path_is_refused(target: Path) -> None:
    with pytest.raises(OutputError, match="NUL"):
        check_output(target.parent / "a\0b", NEW, {})


def test_a_path_that_is_free_is_fine(target: Path) -> None:
    check_output(target, NEW, {})
    check_output(output(target, "old"), OLD, {})
    assert not staging_path(target).exists()
