"""One merge at a time has the directory beside the output."""

import os
from pathlib import Path

import pytest
from modelmerger import OutputError
from modelmerger.output.journal import Journal
from modelmerger.output.parent_folder import staging_path
from modelmerger.output.staging import Staging
from modelmerger.output.staging_directory import StagingDirectory, staged_size

from tests.core.output.staged import LAYOUT, stage


def test_the_second_of_two_is_refused(target: Path) -> None:
    with Staging(target, "plan", LAYOUT):
        with pytest.raises(OutputError, match="by another merge at this moment"), Staging(target, "plan", LAYOUT):
            pass
        assert (staging_path(target) / "model" / "weights").exists()
    with Staging(target, "plan", LAYOUT):
        pass


def test_a_staging_directory_that_goes_before_it_is_opened_is_made_again(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever held it removes it at that moment."""
    root, opening = staging_path(target), os.open

    def late(path: object, *arguments: int, **named: int) -> int:
        if path == root:
            monkeypatch.undo()
            root.rmdir()
        return opening(path, *arguments, **named)  # type: ignore[call-overload,no-any-return]  # a stand-in, or wrong on purpose

    monkeypatch.setattr(os, "open", late)
    with StagingDirectory(target) as directory:
        assert directory.root.is_dir()
        assert directory.journal() == Journal()


def test_the_directory_that_was_locked_is_the_one_at_the_path(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening and the lock, whoever held it removed it, and another made a new one."""
    import fcntl

    root = staging_path(target)
    lock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        monkeypatch.undo()
        root.rmdir()
        root.mkdir()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with StagingDirectory(target) as directory:
        assert os.path.samestat(os.fstat(directory.descriptor), root.stat())
        with pytest.raises(OutputError), StagingDirectory(target):
            pass


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_none_of_ours(target: Path, kind: str) -> None:
    if kind == "file":
        staging_path(target).touch()
    else:
        (target.parent / "elsewhere").mkdir()
        staging_path(target).symlink_to("elsewhere")

    with pytest.raises(OutputError, match="is not a staging directory of a merge"), StagingDirectory(target):
        pass


def test_an_empty_directory_has_an_empty_journal_and_a_foreign_one_has_none(target: Path) -> None:
    with StagingDirectory(target) as directory:
        assert directory.journal() == Journal()
        (directory.root / "diary").touch()
        assert directory.journal() is None


def test_removing_takes_all_of_it(target: Path) -> None:
    stage(target, [0])
    with Staging(target, "plan", LAYOUT) as staging:
        staging.write_document("licenses/a/LICENSE", [b"free"])
        staging.directory.remove()

    assert list(target.parent.iterdir()) == []
    assert staged_size(target) == 0


def test_the_journal_goes_last(target: Path) -> None:
    """So that what a kill leaves of a removal is still ours."""
    stage(target, [0])
    seen: list[tuple[str, bool]] = []
    root = staging_path(target)
    with StagingDirectory(target, lambda name, path: seen.append((name, path.exists()))) as directory:
        directory.step = lambda name, path: seen.append((path.name, (root / "journal").exists()))
        directory.remove()

    assert seen[1:] == [("model", True), ("run", True), ("journal", True), (root.name, False)]
