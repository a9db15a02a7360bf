"""A scratch folder lives as long as what needs it, and no longer: those of killed processes go at the next run."""

import fcntl
import gc
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from modelmerger import OutputError
from modelmerger.output import scratch
from modelmerger.output.scratch import Scratch

from tests.faults.stopping import die, ended, fork


class Owner:
    """What a scratch folder may go with."""


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def left_by(parent: Path, action: Callable[[], object]) -> Path:
    """The folder that a process leaves there which does this while it has one."""

    def run() -> None:
        with Scratch(str(parent)) as made:
            (made.path / "big").write_bytes(b"x")
            (made.path / "offload").mkdir()
            action()

    assert ended(fork(run)) == -signal.SIGKILL
    (left,) = parent.iterdir()
    return left


def test_it_goes_with_the_context(tmp_path: Path) -> None:
    with Scratch(str(tmp_path / "made")) as made:
        (made.path / "file").touch()
    assert not (tmp_path / "made").exists()


def test_it_goes_with_what_needs_it(parent: Path) -> None:
    owner = Owner()
    with Scratch(str(parent)) as made:
        (made.path / "file").touch()
        made.goes_with(owner)
    del made
    gc.collect()
    assert list(parent.iterdir())
    del owner
    gc.collect()
    assert not list(parent.iterdir())


def test_what_a_killed_process_left_goes_when_the_next_one_is_made(parent: Path) -> None:
    """A1"""
    left = left_by(parent, die)
    with Scratch(str(parent)) as made:
        assert os.listdir(parent) == [made.path.name] != [left.name]


def test_what_a_living_process_has_stays_also_when_a_fork_of_it_ends(parent: Path) -> None:
    owner = Owner()
    with Scratch(str(parent)) as made:
        (made.path / "file").touch()

        def other() -> None:
            with Scratch(str(parent)):
                pass
            made.__exit__()

        assert ended(fork(other)) == 0
        assert (made.path / "file").exists()
        made.goes_with(owner)
    with Scratch(str(parent)) as second:
        assert {path.name for path in parent.iterdir()} == {made.path.name, second.path.name}


def test_only_what_is_ours_goes(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = left_by(parent, die)
    (parent / "modelmerger-scratch").mkdir()
    (parent / f"{left.name[:-8]}linked").symlink_to(parent / "modelmerger-scratch")
    (parent / f"{left.name[:-8]}filed").touch()
    there = set(os.listdir(parent))
    with monkeypatch.context() as changed:
        changed.setattr(scratch.os, "geteuid", lambda: os.getuid() + 1)
        with Scratch(str(parent)):
            pass
    assert set(os.listdir(parent)) == there
    with Scratch(str(parent)):
        pass
    assert set(os.listdir(parent)) == there - {left.name}


def test_without_locks_nothing_is_taken_for_dead(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A22"""
    left = left_by(parent, die)

    def lacking(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", lacking)
    with Scratch(str(parent)) as made:
        assert set(os.listdir(parent)) == {left.name, made.path.name}
    assert os.listdir(parent) == [left.name]


def test_a_folder_that_is_taken_for_a_dead_one_before_it_is_locked_is_made_again(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, make = [], tempfile.mkdtemp

    def removed(**told: object) -> str:
        made.append(make(**told))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", removed)
    with Scratch(str(parent)) as found:
        assert [str(found.path)] == made[1:]


def test_where_no_temporary_file_can_be_made_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(OutputError, match="No usable temporary directory"), Scratch(None):
        pass
