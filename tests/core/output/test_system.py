import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from modelmerger.output import system
from modelmerger.output.system import ExchangeUnsupportedError, exchange, rename_new, start_writeback


def made(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def unsupported(*_: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.fixture(params=["renameat2", "no renameat2"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no renameat2":
        monkeypatch.setattr(system, "_renameat2", unsupported)


@pytest.mark.usefixtures("kernel")
def test_a_free_name_is_given(tmp_path: Path) -> None:
    rename_new(made(tmp_path / "new", "new"), tmp_path / "name")

    assert os.listdir(tmp_path) == ["name"]
    assert (tmp_path / "name" / "file").read_text() == "new"


OCCUPIED: dict[str, Callable[[Path], object]] = {
    "directory": lambda path: made(path, "old"),
    "empty directory": Path.mkdir,
    "file": Path.touch,
    "link": lambda path: path.symlink_to("new"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("occupy", OCCUPIED.values(), ids=OCCUPIED)
def test_a_name_that_something_has_is_not_given(tmp_path: Path, occupy: Callable[[Path], object]) -> None:
    made(tmp_path / "new", "new")
    occupy(tmp_path / "name")
    before = (tmp_path / "name").lstat()

    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "new", tmp_path / "name")

    assert (tmp_path / "name").lstat().st_ino == before.st_ino
    assert (tmp_path / "new" / "file").read_text() == "new"


@pytest.mark.parametrize("late", ["directory", "file", "link"])
def test_what_appears_after_the_look_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    monkeypatch.setattr(system, "_renameat2", unsupported)
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    made(tmp_path / "new", "new")
    OCCUPIED[late](tmp_path / "name")

    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "new", tmp_path / "name")


def test_other_errors_of_a_rename_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rename_new(tmp_path / "nothing", tmp_path / "name")


def test_two_directories_change_places(tmp_path: Path) -> None:
    first, second = made(tmp_path / "first", "1"), made(tmp_path / "second", "2")

    exchange(first, second)

    assert (first / "file").read_text() == "2"
    assert (second / "file").read_text() == "1"


def test_an_exchange_needs_both(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        exchange(made(tmp_path / "first", "1"), tmp_path / "second")


def test_where_nothing_can_be_exchanged_both_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_renameat2", unsupported)
    first, second = made(tmp_path / "first", "1"), made(tmp_path / "second", "2")

    with pytest.raises(ExchangeUnsupportedError):
        exchange(first, second)
    assert (first / "file").read_text() == "1"


def test_writeback_is_a_hint_and_never_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x" * 5000)
        file.flush()
        start_writeback(file.fileno(), 0, 5000)
    start_writeback(-1, 0, 1)
    monkeypatch.setattr(system, "_libc", lambda: None)
    start_writeback(-1, 0, 1)
