"""Merges that are killed, or fail, at a chosen step: in this process through the seam, or in a child forked from it."""

import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from attrs import define, field
from modelmerger import MergeConfig, Watch, merge

PATIENCE = 60.0


def staging_path(output: Path) -> Path:
    """The directory beside an output in which it grows: `journal`, and `model/`, which becomes the output."""
    return output.parent / f".{output.name}.modelmerger"


@define
class Steps:
    """Counts the steps of a merge, from any thread, and acts at the one with the number `at` (the first is 1)."""

    at: int = 0
    action: Callable[[], object] = lambda: None
    seen: list[tuple[str, Path]] = field(factory=list)
    _lock: threading.Lock = field(factory=threading.Lock)

    def __call__(self, name: str, path: Path) -> None:
        with self._lock:
            self.seen.append((name, path))
            due = len(self.seen) == self.at
        if due:
            self.action()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def failing(number: int) -> Callable[[], object]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def fork(run: Callable[[], object], error_file: Path | None = None) -> int:
    """Starts `run` in a child. The child ends with what it returns (None: 0), or 99 after a traceback on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forking with threads
        child = os.fork()
    if child:
        return child
    status = 99
    try:
        if error_file is not None:
            os.dup2(os.open(error_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
        status = int(run() or 0)  # type: ignore[call-overload]  # a stand-in, or wrong on purpose
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(child: int, patience: float = PATIENCE) -> int:
    """How a child ended: its exit status, or minus the number of the signal that ended it. One that hangs is a failure."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the child hung for {patience} seconds")


def wait_until(holds: Callable[[], object], patience: float = PATIENCE) -> None:
    until = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < until, f"waited {patience} seconds in vain"
        time.sleep(0.005)


def killed_merge(config: dict[str, Any], at: int) -> int:
    """Runs a merge in a child that is killed at a step. Returns how it ended."""
    return ended(fork(lambda: merge(MergeConfig(**config), Watch(step=Steps(at, die))) and None))


def spread(count: int, most: int) -> Iterable[int]:
    """At most `most` numbers from 1 to `count`, evenly spread, both ends among them."""
    if count <= most:
        return range(1, count + 1)
    return sorted({1 + round(i * (count - 1) / (most - 1)) for i in range(most)})


def assert_sentences(err: str) -> None:
    """D5: one line a problem, at most 300 characters each, at most 20 and a last one that says how many more there are."""
    lines = err.splitlines()
    assert lines
    assert all(line.startswith(("error: ", "warning: ", "… and ")) and len(line) <= 300 for line in lines), err
    assert sum(line.startswith("error: ") for line in lines) <= 20
    assert "Traceback" not in err and "a bug in modelmerger" not in err
