import errno
import os
import stat
from pathlib import Path

import pytest
from modelmerger.output.earlier.kept_entries import keep_entries
from modelmerger.output.entries import open_directory
from modelmerger.output.steps import no_step
from modelmerger.values.errors import OutputError


@pytest.fixture
def old(tmp_path: Path) -> Path:
    directory = tmp_path / "old"
    (directory / "runs" / "first").mkdir(parents=True)
    (directory / "runs" / "first" / "events").write_text("loss: 2.1")
    (directory / "runs" / "empty").mkdir(mode=0o700)
    (directory / "notes.txt").write_text("mine")
    (directory / "notes.txt").chmod(0o640)
    os.utime(directory / "notes.txt", ns=(5, 7))
    (directory / "latest").symlink_to("runs/first")
    (directory / "licenses").mkdir()
    (directory / "licenses" / "mine").write_text("LICENSE")
    return directory


NAMES = ["latest", "licenses/mine", "notes.txt", "runs"]


def kept(old: Path, names: list[str]) -> Path:
    new = old.parent / "new"
    new.mkdir(exist_ok=True)
    tree = open_directory(new)
    try:
        keep_entries(names, old, tree, no_step)
    finally:
        os.close(tree)
    return new


def described(directory: Path) -> dict[str, tuple[int, int, str]]:
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        when = 0 if path.is_symlink() or path.name == "licenses" else status.st_mtime_ns
        found[path.relative_to(directory).as_posix()] = (stat.S_IMODE(status.st_mode), when, content)
    return found


def test_entries_are_in_both_directories_and_are_one(old: Path) -> None:
    before = described(old)

    new = kept(old, NAMES)

    assert described(new) == described(old) == before
    for name in ("notes.txt", "latest", "licenses/mine", "runs/first/events"):
        assert os.path.samestat((old / name).lstat(), (new / name).lstat())


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_where_there_are_no_hard_links_they_are_copied(old: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    before = described(old)

    new = kept(old, NAMES)

    assert described(new) == described(old) == before
    assert not os.path.samestat((old / "notes.txt").lstat(), (new / "notes.txt").lstat())


@pytest.mark.parametrize("name", ["notes.txt", "runs", "latest", "licenses/mine"])
def test_what_is_in_the_way_of_the_new_model_is_refused(old: Path, name: str) -> None:
    new = old.parent / "new"
    (new / name).parent.mkdir(parents=True)
    (new / name).write_text("the merge's")

    with pytest.raises(OutputError, match=f"{name}: is in the new model too"):
        kept(old, [name])
    assert (new / name).read_text() == "the merge's"


def test_what_lies_on_another_disk_is_refused(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)

    with pytest.raises(OutputError, match=r"notes\.txt: lies on another disk"):
        kept(old, ["notes.txt"])


def test_a_fifo_that_cannot_be_linked_is_refused(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(old / "pipe")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)

    with pytest.raises(OutputError, match="pipe: is no file, folder or link"):
        kept(old, ["pipe"])


def test_no_link_is_followed_on_the_way(old: Path) -> None:
    (old / "licenses" / "mine").unlink()
    (old / "licenses").rmdir()
    elsewhere = old.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("somebody's")
    (old / "licenses").symlink_to(elsewhere)

    with pytest.raises(OutputError):
        kept(old, ["licenses/mine"])
    assert not (old.parent / "new" / "licenses" / "mine").exists()
