"""A name in a directory is one process's at a time, also where no lock is shared. No test waits: clocks are given."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import asdict, evolve
from modelmerger import OutputError
from modelmerger.output.shared.owner import GONE, OwnedError, Owner, Ownership, check_free, read_owner, time_of

NOW = 1_000_000.0
ELSEWHERE = Owner("node7", "another machine", os.getpid(), "1", "theirs")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def ownership(directory: int, token: str = "mine", now: Callable[[int, str], float] = lambda *_: NOW) -> Ownership:
    return Ownership(directory, "owner", Owner.this(token, "merge"), "/out", now)


def left_by(folder: Path, owner: Owner, seconds: float) -> None:
    """The file of an owner that was last renewed so many seconds ago."""
    path = folder / "owner"
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (NOW - seconds, NOW - seconds))


def test_the_second_of_two_is_refused_until_the_first_gives_it_back(directory: int, tmp_path: Path) -> None:
    first, second = ownership(directory, "first"), ownership(directory, "second")
    first.take()
    with pytest.raises(OwnedError) as refused:
        second.take()
    host = os.uname().nodename
    assert str(refused.value) == (
        f"/out: is being written by another merge at this moment (process {os.getpid()} on {host}). "
        "Wait for it, or give another output path."
    )
    assert refused.value.exit_status == 4
    first.release()
    second.take()
    first.release()  # which is not its own any more
    assert (tmp_path / "owner").exists()
    second.release()
    assert os.listdir(tmp_path) == []


def test_an_owner_on_another_machine_is_gone_after_a_minute_without_a_sign(directory: int, tmp_path: Path) -> None:
    left_by(tmp_path, ELSEWHERE, GONE - 1)
    with pytest.raises(OwnedError, match=r"process \d+ on node7, heard of 59 s ago.*nothing was heard of it for 60 s"):
        ownership(directory).take()

    left_by(tmp_path, ELSEWHERE, GONE + 1)
    mine = ownership(directory)
    mine.take()

    assert read_owner(directory, "owner") is not None
    assert sorted(os.listdir(tmp_path)) == ["owner"]
    mine.release()


def test_who_was_taken_for_gone_hears_of_it_and_stops(directory: int, tmp_path: Path) -> None:
    hung = ownership(directory, "hung")
    hung.take()
    hung.renew()
    hung.check()
    left_by(tmp_path, ELSEWHERE, 0)
    hung.renew()
    with pytest.raises(OutputError, match="was taken over by another machine"):
        hung.check()
    hung.release()
    assert (tmp_path / "owner").exists()


def test_a_sign_of_life_is_the_time_of_the_file(directory: int, tmp_path: Path) -> None:
    mine = ownership(directory)
    mine.take()
    os.utime(tmp_path / "owner", (5, 5))
    mine.renew()
    assert (tmp_path / "owner").stat().st_mtime == pytest.approx(time_of(directory, "x"), abs=30)
    mine.release()


def test_a_process_of_this_machine_that_has_ended_is_gone_at_once(directory: int, tmp_path: Path) -> None:
    """A10: A killed merge leaves nothing behind that keeps the next one away."""
    dead = evolve(Owner.this("dead", "merge"), process=os.getpid(), started="1")  # another had that number since
    left_by(tmp_path, dead, 0)
    mine = ownership(directory)
    mine.take()
    mine.release()


def test_what_nobody_can_read_is_an_owner_until_it_is_old(directory: int, tmp_path: Path) -> None:
    (tmp_path / "owner").write_bytes(b"")
    os.utime(tmp_path / "owner", (NOW, NOW))
    with pytest.raises(OwnedError, match="another merge at this moment"):
        ownership(directory).take()
    os.utime(tmp_path / "owner", (NOW - GONE - 1, NOW - GONE - 1))
    mine = ownership(directory)
    mine.take()
    mine.release()


def test_who_cannot_write_its_name_keeps_nobody_waiting(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("modelmerger.output.shared.owner.write_all", full)
        ownership(directory).take()
    assert os.listdir(tmp_path) == []


def test_two_that_take_over_at_once_do_not_both_succeed(directory: int, tmp_path: Path) -> None:
    """The slower one has seen the old owner, and finds the quicker one's file under the name."""
    left_by(tmp_path, ELSEWHERE, GONE + 1)
    quicker = ownership(directory, "quicker")
    looks: list[int] = []

    def overtaken(*_: object) -> float:
        if not looks:
            looks.append(1)
            quicker.take()
        return NOW

    os.utime(tmp_path / "owner", (NOW - GONE - 1, NOW - GONE - 1))
    with pytest.raises(OwnedError):
        ownership(directory, "slower", overtaken).take()

    quicker.renew()
    quicker.check()
    assert sorted(os.listdir(tmp_path)) == ["owner"]
    quicker.release()


def test_who_only_looks_is_told_the_same(directory: int, tmp_path: Path) -> None:
    check_free(directory, "owner", "t", "/out")
    mine = ownership(directory)
    mine.take()
    with pytest.raises(OwnedError):
        check_free(directory, "owner", "t", "/out")
    mine.release()
    check_free(directory, "owner", "t", "/out")
    assert os.listdir(tmp_path) == []
