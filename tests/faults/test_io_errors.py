"""The disk fails, is full, or is slow to say so: exit 4, a sentence, the output as it was, and a process that goes on."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import command_line, directory_state
from modelmerger import MergeConfig, OutputError, Watch, merge, verify

from tests.faults.conftest import FEW, MANY, both_ways
from tests.faults.stopping import Steps, assert_sentences, ended, failing, fork, staging_path
from tests.faults.traced import attached

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def left_open(wanted: int) -> int:
    """How many descriptors stay open; what is being read ahead is closed by who reads it, a moment later."""
    until = time.monotonic() + 5
    while (found := open_descriptors()) != wanted and time.monotonic() < until:
        time.sleep(0.01)
    return found


CASES = {
    "EIO, new output": (errno.EIO, None, False, "direct"),
    "ENOSPC, overwrite": (errno.ENOSPC, MANY, False, "buffered"),
    "EIO, resumed overwrite": (errno.EIO, MANY, True, "direct"),
}


@pytest.mark.parametrize(("number", "before", "resumed", "io"), CASES.values(), ids=CASES)
def test_an_error_at_any_step_leaves_the_output_as_it_was(
    sharded: SimpleNamespace, number: int, before: int | None, resumed: bool
) -> None:
    """A2, A4, A5: at every step up to the fsync that makes the new name last. After that, the merge is done."""
    if before is not None:
        merge(MergeConfig(**sharded.config(before, weight=0.7)))
    old = directory_state(sharded.output)
    config = MergeConfig(**sharded.config(FEW, overwrite=before is not None))
    at, failed = 0, set[str]()
    while True:
        at += 1
        steps = Steps(at, failing(number))
        try:
            merge(config, Watch(step=steps))
        except OutputError as error:
            if at == 1:
                descriptors = open_descriptors()
            where = f"step {at}, {steps.seen[-1]}"
            failed.add(steps.seen[-1][0])
            assert directory_state(sharded.output) == old, where
            assert_sentences("".join(f"error: {line}\n" for line in error.lines()))
            assert os.strerror(number) in str(error), where
            assert ("Free some space" in str(error)) == (number == errno.ENOSPC)
            assert left_open(descriptors) == descriptors, where
            if not resumed:
                shutil.rmtree(staging_path(sharded.output), ignore_errors=True)
        else:
            break
    assert steps.seen[at - 1][0] == "remove"
    assert failed >= {"create", "journal", "fsync", "rename"} | (set() if resumed else {"allocate", "write"})
    verify(sharded.output)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_cannot_be_removed_after_publishing_is_a_warning(
    sharded: SimpleNamespace, overwrite: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A2: the merge is done then, and a later run clears up."""
    if overwrite:
        merge(MergeConfig(**sharded.config(MANY, weight=0.7)))
    config = sharded.config(overwrite=overwrite)

    def no_removing(name: str, path: Path) -> None:
        if name == "remove" and (sharded.output / "modelmerger.json").exists() and rename in seen:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        seen.append(name)

    rename, seen = "rename", list[str]()
    report = merge(MergeConfig(**config), Watch(step=no_removing))

    verify(sharded.output)
    (warning,) = [note for note in report.notes if note.severity == "warning"]
    assert warning.where == str(staging_path(sharded.output))
    assert "could not be removed: Input/output error" in warning.message
    assert str(warning) in caplog.messages
    merge(MergeConfig(**config))
    assert not staging_path(sharded.output).exists()


def test_files_are_on_the_disk_before_their_directory_before_the_rename_before_its_parent(
    sharded: SimpleNamespace,
) -> None:
    """A3"""
    steps = Steps()
    merge(MergeConfig(**sharded.config()), Watch(step=steps))

    tree = staging_path(sharded.output) / "model"
    order = [(name, path) for name, path in steps.seen if name in ("write", "create", "fsync", "rename")]
    rename = order.index(("rename", sharded.output))
    assert order[rename + 1] == ("fsync", sharded.output.parent)
    assert order[rename - 1] == ("fsync", tree)
    files = {tree / path.relative_to(sharded.output) for path in sharded.output.rglob("*") if path.is_file()}
    folders = {tree / path.relative_to(sharded.output) for path in sharded.output.rglob("*") if path.is_dir()}
    assert folders
    for file in files:
        last_write = max(i for i, step in enumerate(order) if step == ("write", file))
        synced = order.index(("fsync", file), last_write)
        assert last_write < synced < rename
        assert order.index(("fsync", file.parent), synced if file.parent != tree else 0) < rename
    for folder in folders:
        made = max(i for i, step in enumerate(order) if step == ("create", folder))
        assert order.index(("fsync", folder.parent), order.index(("create", folder))) < rename
        assert order.index(("fsync", folder), made) < rename


@needs_strace
@both_ways
def test_the_system_sees_the_same_order(sharded: SimpleNamespace) -> None:
    """A3: what strace sees, which the seam cannot make up."""
    with attached(
        lambda: merge(MergeConfig(**sharded.config())), "-y", "-e", "trace=fsync,renameat2,rename,pwrite64"
    ) as traced:
        assert traced.status == 0
    calls = [line.split(maxsplit=1)[1] for line in traced.log if "(" in line]
    tree = f"{staging_path(sharded.output)}/model"
    rename = next(i for i, call in enumerate(calls) if call.startswith("renameat2(") and call.rstrip().endswith("= 0"))
    after = [call for call in calls[rename + 1 :] if call.startswith("fsync(")]
    assert f"<{sharded.folder}>)" in after[0]
    before = [call for call in calls[:rename] if call.startswith("fsync(")]
    assert f"<{tree}>)" in before[-1]
    for path in sharded.output.rglob("*"):
        name = f"<{tree}/{path.relative_to(sharded.output)}>)"
        synced = [i for i, call in enumerate(calls[:rename]) if call.startswith("fsync(") and name in call]
        written = [i for i, call in enumerate(calls) if call.startswith("pwrite64(") and name[:-1] in call]
        assert synced, name
        assert max(written, default=-1) < synced[-1]


INJECTIONS = {
    "pwrite64": ["EIO:when=1", "ENOSPC:when=2"],
    "fsync": ["EIO:when=1", "EIO:when=4", "EIO:when=9"],
    "fallocate": ["ENOSPC:when=2"],
    "mkdirat,mkdir": ["ENOSPC:when=2"],
    "renameat2": ["EIO:when=1", "ENOSPC:when=1"],
}


@needs_strace
@both_ways
@pytest.mark.parametrize(("call", "error"), [(call, error) for call, errors in INJECTIONS.items() for error in errors])
def test_an_error_from_the_system_itself_is_exit_4(
    config_file: Callable[..., Path], sharded: SimpleNamespace, call: str, error: str
) -> None:
    """A2"""
    path = config_file()
    said = sharded.folder / "said"
    with attached(lambda: command_line("merge", path), "-e", f"inject={call}:error={error}", error_file=said) as traced:
        assert traced.status == 4, said.read_text()

    assert_sentences(said.read_text())
    assert directory_state(sharded.output) is None
    merge(MergeConfig(**json.loads(path.read_text())))
    verify(sharded.output)


def test_a_full_disk_is_said_before_the_first_tensor_is_read(
    sharded: SimpleNamespace,
    config_file: Callable[..., Path],
    refused: Callable[..., str],
    unread: Callable[[], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A4: with what is needed and what is free."""
    disk = os.statvfs(sharded.folder)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=2, f_frsize=512, f_blocks=disk.f_blocks))

    err = refused(4, "merge", config_file())

    assert "1.0 KiB are free" in err
    assert "64.0 MiB are needed" in err
    assert unread()
    assert not staging_path(sharded.output).exists()


def test_what_an_unfinished_merge_takes_is_not_needed_again(
    sharded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A4: a merge that filled the disk can be resumed on the full disk."""
    config = sharded.config()
    steps = Steps()
    merge(MergeConfig(**config), Watch(step=steps))
    shutil.rmtree(sharded.output)
    with pytest.raises(OutputError):
        merge(MergeConfig(**config), Watch(step=Steps(len(steps.seen) - 6, failing(errno.ENOSPC))))
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=64 << 20, f_frsize=1))
    with pytest.raises(OutputError, match=r"64\.0 MiB are free"):
        merge(MergeConfig(**{**config, "output_path": str(sharded.folder / "elsewhere")}))

    assert merge(MergeConfig(**config)).bytes_reused > 0


@both_ways
@pytest.mark.parametrize("limit", [1 << 10, 6 << 10], ids=["while space is reserved", "while files are written"])
def test_a_file_that_may_not_grow_is_exit_4(
    sharded: SimpleNamespace, config_file: Callable[..., Path], limit: int
) -> None:
    """A4, A5: a limit of the system that a process without rights can set stands for a disk that is full."""
    path, said = config_file(), sharded.folder / "said"

    def limited() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return command_line("merge", path)

    assert ended(fork(limited, said)) == 4
    assert "File too large" in said.read_text()
    assert_sentences(said.read_text())
    assert directory_state(sharded.output) is None
    merge(MergeConfig(**json.loads(path.read_text())))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "README.md", "modelmerger.json"])
@pytest.mark.parametrize("step", ["create", "write", "fsync"])
def test_a_full_disk_while_documents_are_written_is_exit_4(sharded: SimpleNamespace, name: str, step: str) -> None:
    """A5"""

    def full(found: str, path: Path) -> None:
        if (found, path.name) == (step, name):
            failing(errno.ENOSPC)()

    with pytest.raises(OutputError, match=f"/{name}: cannot be written: No space left on device") as raised:
        merge(MergeConfig(**sharded.config()), Watch(step=full))

    assert raised.value.exit_status == 4
    assert_sentences("".join(f"error: {line}\n" for line in raised.value.lines()))
    assert directory_state(sharded.output) is None
    assert merge(MergeConfig(**sharded.config())).bytes_reused > 0
    verify(sharded.output)


def test_a_read_error_is_said_of_the_input(
    sharded: SimpleNamespace,
    config_file: Callable[..., Path],
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A2: and not of the output."""

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = config_file()
    monkeypatch.setattr(os, "preadv", broken)
    err = refused(3, "merge", path)

    assert err.startswith(f"error: {sharded.a}/model.safetensors: cannot be read: Input/output error")
    assert directory_state(sharded.output) is None


def test_a_worker_that_dies_ends_the_merge(
    config_file: Callable[..., Path],
    command: Callable[..., SimpleNamespace],
    sharded: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D3: in no more time than a unit takes, with one line."""
    main, pwrite = threading.main_thread(), os.pwrite

    def dies(*given: Any) -> int:
        if threading.current_thread() is not main:
            raise RuntimeError("worker gone")
        return pwrite(*given)

    monkeypatch.setattr(os, "pwrite", dies)
    signal.alarm(30)
    try:
        found = command("merge", config_file(low_memory_mode=False))
    finally:
        signal.alarm(0)

    assert found.status == 1
    assert found.err.startswith("error: a bug in modelmerger: RuntimeError: worker gone.")
    assert len(found.err.splitlines()) == 1
    assert directory_state(sharded.output) is None


@pytest.mark.parametrize("kind", ["closed pipe", "full", "closed"])
def test_a_standard_output_that_takes_nothing_is_no_deadlock(
    sharded: SimpleNamespace, config_file: Callable[..., Path], kind: str
) -> None:
    """D3: the merge is published by then, and the exit status says that the report was lost."""
    path, said = config_file(), sharded.folder / "said"

    def run() -> int:
        if kind == "closed":
            os.close(1)
            sys.stdout = None  # type: ignore[assignment]  # a stand-in, or wrong on purpose
            return command_line("merge", path)
        if kind == "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        else:
            reading, writing = os.pipe()
            os.dup2(writing, 1)
            os.close(reading)
            os.close(writing)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        return command_line("merge", path)

    assert ended(fork(run, said), 30) == (0 if kind == "closed" else 4)
    assert "Traceback" not in said.read_text()
    assert "a bug" not in said.read_text()
    verify(sharded.output)


def test_a_broken_pipe_is_the_exit_status_of_the_process_too(sharded: SimpleNamespace) -> None:
    """D3: nothing is said while the interpreter shuts down."""
    reading, writing = os.pipe()
    os.close(reading)
    found = subprocess.run(
        [sys.executable, "-m", "modelmerger", "plugins"],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (found.returncode, found.stderr) == (4, b"")
