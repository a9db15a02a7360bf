"""Merges by the strategy `held`, which waits: who is at work, and merges in processes of their own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

PATIENCE = 240.0
"""Seconds after which what does not come hangs: many times what it takes, also where much else runs."""


def workers(large: SimpleNamespace) -> list[int]:
    """The processes that have begun to merge."""
    return [int(path.name.removeprefix("at-")) for path in sorted(large.held.glob("at-*"))]


def wait_until(holds: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def begun(large: SimpleNamespace, said: Path, *, joins: bool = True) -> "subprocess.Popen[bytes]":
    """The command line, in a process and a session of its own, whose workers will be held.

    joins: whether it joins the cluster of the tests, or starts one.
    """
    (large.held / "hold").touch()
    path = large.folder / "config.json"
    path.write_text(json.dumps(large.told("held")))
    environment = {key: value for key, value in os.environ.items() if joins or key != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "modelmerger", "merge", str(path)]
    with said.open("wb") as err:
        return subprocess.Popen(command, stderr=err, start_new_session=True, env=environment)


def started(large: SimpleNamespace, said: Path, *, joins: bool = True) -> "subprocess.Popen[bytes]":
    """The same, once the first of its workers is at work."""
    process = begun(large, said, joins=joins)
    wait_until(lambda: workers(large) or process.poll() is not None)
    assert process.poll() is None, said.read_text()
    return process


def has_children(process: int) -> bool:
    """Whether a process has started others."""
    return any(path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children"))
