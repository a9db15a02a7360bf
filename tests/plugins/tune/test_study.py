"""The file of a study: one of ours, for one process at a time, that survives kills and a full disk."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from modelmerger import OutputError
from modelmerger_plugins.tune.result import write
from modelmerger_plugins.tune.study import FILE, Study

from tests.faults.stopping import die, ended, fork, wait_until

ABOUT = {"config": {"strategy": "ties"}, "texts": {"tune/a": "d1"}}
ROW = {"kind": "trial", "number": 0, "vector": [0.1], "losses": {"a": 1.5}, "seconds": 0.25}


def study(folder: Path, *, resume: bool = False, **about: Any) -> Study:
    return Study(folder, about or ABOUT, resume=resume)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The file of a study with two rows."""
    found = study(tmp_path)
    for number in range(2):
        found.add(ROW | {"number": number})
    found.close()
    return tmp_path / FILE


def test_what_was_added_is_found_again(kept: Path) -> None:
    content = kept.read_bytes()
    found = study(kept.parent, resume=True)
    assert found.found(kind="trial", number=1) == ROW | {"number": 1}
    assert found.found(kind="trial", number=2) is None
    found.close()
    assert kept.read_bytes() == content


def test_two_searches_of_one_study_exclude_each_other(kept: Path) -> None:
    first = study(kept.parent, resume=True)
    with pytest.raises(OutputError, match="is being written by another search at this moment"):
        study(kept.parent, resume=True)
    first.close()
    study(kept.parent, resume=True).close()


def test_a_process_that_is_killed_leaves_no_lock(kept: Path) -> None:
    ready = kept.with_name("ready")

    def held() -> None:
        found = study(kept.parent, resume=True)
        ready.touch()
        assert found
        wait_until(lambda: kept.with_name("seen").exists())
        die()

    child = fork(held)
    wait_until(ready.exists)
    with pytest.raises(OutputError, match="another search"):
        study(kept.parent, resume=True)
    kept.with_name("seen").touch()
    assert ended(child) == -9
    study(kept.parent, resume=True).close()


def test_a_fork_of_a_search_does_not_hold_its_lock(kept: Path) -> None:
    found = study(kept.parent, resume=True)
    ready, over = kept.with_name("ready"), kept.with_name("over")
    child = fork(lambda: (ready.touch(), wait_until(over.exists))[1])
    wait_until(ready.exists)
    found.close()
    study(kept.parent, resume=True).close()
    over.touch()
    assert ended(child) == 0


@pytest.mark.parametrize("torn", [b'{"kind": "trial", "numb', b"\0\0\0", b"{}"])
def test_a_last_line_that_is_not_whole_is_left_out(kept: Path, torn: bytes) -> None:
    whole = kept.read_bytes()
    kept.write_bytes(whole + torn)
    found = study(kept.parent, resume=True)
    assert found.found(kind="trial", number=1) is not None
    found.add(ROW | {"number": 2})
    found.close()
    assert kept.read_bytes().startswith(whole)
    assert kept.read_bytes().count(b"\n") == 4


@pytest.mark.parametrize("length", [0, 5, 11, 40])
def test_a_header_that_is_not_whole_is_begun_anew(kept: Path, length: int) -> None:
    kept.write_bytes(kept.read_bytes()[:length])
    study(kept.parent).close()
    assert kept.read_bytes().count(b"\n") == 1


DAMAGED = {
    "no JSON": b"}\n",
    "deep": b"[" * 100_000 + b"\n",
    "no UTF-8": b"\xff\n",
    "another header": b'{"study": 1}\n',
    "no vector": b'{"kind": "trial", "number": 0, "losses": {"a": 1.5}, "seconds": 1}\n',
    "texts for losses": b'{"kind": "aside", "model": "x", "losses": {"a": "1"}}\n',
    "spelled otherwise": b'{"kind":"aside","model":"x","losses":{}}\n',
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_damage_before_the_end_is_refused_with_its_line(kept: Path, line: bytes) -> None:
    header, row, last = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(content := header + line + row + last)
    with pytest.raises(OutputError, match="line 2 is no row of a study"):
        study(kept.parent, resume=True)
    assert kept.read_bytes() == content


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def hard_linked(path: Path) -> None:
    os.link(path, path.with_name("elsewhere"))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def another_program(path: Path) -> None:
    path.write_text("a,b\n1,2\n")


def notes_without_an_end(path: Path) -> None:
    path.write_text("notes")


INSTEAD = [linked, hard_linked, fifo, directory, another_program, notes_without_an_end]


@pytest.mark.parametrize("put", INSTEAD, ids=lambda one: one.__name__)
@pytest.mark.parametrize("resume", [False, True])
def test_what_is_no_study_is_refused_and_left_alone(kept: Path, put: Callable[[Path], None], resume: bool) -> None:
    whole = kept.read_bytes()
    put(kept)
    with pytest.raises(OutputError, match=r"study\.jsonl: (is|has) .* Move it away, or tune into another output"):
        study(kept.parent, resume=resume)
    for file in (kept, kept.with_name("elsewhere")):
        if file.is_file() and put in (linked, hard_linked):
            assert file.read_bytes() == whole


def test_a_folder_that_is_a_link_is_refused(kept: Path) -> None:
    kept.parent.with_name("link").symlink_to(kept.parent)
    with pytest.raises(OutputError, match="is a link, and not the folder of a search"):
        study(kept.parent.with_name("link"), resume=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_takes_no_more_is_said_and_survived(
    kept: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    whole = kept.read_bytes()
    found = study(kept.parent, resume=True)
    wrote: list[int] = []
    real = os.write

    def full(descriptor: int, content: bytes) -> int:
        if wrote:
            raise OSError(number, os.strerror(number))
        wrote.append(real(descriptor, content[:7]))
        return wrote[-1]

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OutputError) as caught:
            found.add(ROW | {"number": 2})
    found.close()
    said = str(caught.value)
    assert os.strerror(number) in said
    assert ("Free some space" in said) == (number == errno.ENOSPC)
    assert "--resume" in said
    assert kept.read_bytes() == whole
    again = study(kept.parent, resume=True)
    assert again.found(kind="trial", number=1) is not None
    again.close()
    assert kept.read_bytes() == whole


def test_another_config_is_another_study(kept: Path) -> None:
    with pytest.raises(OutputError, match="the texts changed since"):
        study(kept.parent, resume=True, config=ABOUT["config"], texts={})
    with pytest.raises(OutputError, match="exists already"):
        study(kept.parent)


@pytest.mark.parametrize("put", [linked, fifo], ids=lambda one: one.__name__)
def test_files_of_a_result_are_written_past_what_has_their_names(tmp_path: Path, put: Callable[[Path], None]) -> None:
    for name in ("tuned.yaml", ".tuned.yaml.new"):
        folder = tmp_path / name.strip(".")
        folder.mkdir()
        (folder / name).write_text("theirs")
        put(folder / name)
        write(folder, "tuned.yaml", b"ours")
        assert (folder / "tuned.yaml").read_bytes() == b"ours"
        assert not (folder / "tuned.yaml").is_symlink()
        if (folder / "elsewhere").exists():
            assert (folder / "elsewhere").read_text() == "theirs"
