"""File systems that lack a call: a merge does without it, or is refused with a sentence, and never waits for ever."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.watching import at_once
from modelmerger import MergeConfig, OutputError, merge
from modelmerger.output import system
from modelmerger.output.verification import verify

Command = Callable[..., SimpleNamespace]


def lacking(number: int) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_directories_have_no_fsync_the_files_have_one(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A22"""
    synced, fsync = [], os.fsync

    def of_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", of_files)
    merge(MergeConfig(**config))

    assert {"model.safetensors", "modelmerger.json"} <= {Path(path).name for path in synced}
    assert verify(models.output).files > 1


def test_an_fsync_of_a_directory_that_fails_is_an_error(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A22"""
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        merge(MergeConfig(**config))
    assert not models.output.exists()


@pytest.mark.parametrize("call", ["write", "pwrite"])
def test_a_write_of_no_bytes_ends_the_merge(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A22"""
    monkeypatch.setattr(os, call, lambda *_: 0)

    with at_once(), pytest.raises(OutputError, match="took none of the bytes"):
        merge(MergeConfig(**config))
    assert not models.output.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_without_locks_a_merge_is_refused_with_what_to_do(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A22: A10 could not be promised there."""
    monkeypatch.setattr(fcntl, "flock", lacking(number))

    with pytest.raises(OutputError, match=r"without locks.*Give an output path on another disk"):
        merge(MergeConfig(**config))
    assert not models.output.exists()


def test_a_directory_that_is_another_one_at_each_look_is_refused(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A22: As some file systems in user space number their files anew."""
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)

    with at_once(), pytest.raises(OutputError, match="another directory whenever it is looked at"):
        merge(MergeConfig(**config))
    assert not models.output.exists()


def test_without_the_calls_of_new_kernels_the_same_is_written(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A22"""
    merge(MergeConfig(**config))
    expected = (models.output / "model.safetensors").read_bytes()
    monkeypatch.setattr(system, "_renameat2", lacking(errno.ENOSYS))
    monkeypatch.setattr(system, "_libc", lambda: None)
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.delattr(os, "posix_fadvise")
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(os, "statvfs", lacking(errno.ENOSYS))

    merge(MergeConfig(**{**config, "output_path": str(models.folder / "again")}))

    assert (models.folder / "again" / "model.safetensors").read_bytes() == expected


def test_a_disk_that_does_not_say_what_is_free_is_not_full(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """A22"""
    nothing = SimpleNamespace(f_bavail=0, f_blocks=0, f_frsize=0, f_bsize=0)
    monkeypatch.setattr(os, "statvfs", lambda _: nothing)
    path = models.folder / "merge.json"
    path.write_text(str(config).replace("'", '"'))

    planned = command("plan", path, "--no-trial")

    assert (planned.status, "free  " in planned.out) == (0, False)
    assert command("merge", path).status == 0
