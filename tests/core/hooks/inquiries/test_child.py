"""A function called in a process of its own gives plain data or says why not, and nothing of the process is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from modelmerger.hooks.inquiries.child import Call, Child, Limits, NoAnswerError, called

MODULE = """
import importlib.util, os, subprocess, sys, time

def doubled(argument):
    print("not an answer")
    os.write(1, b"nor this")
    return [argument, argument, os.environ.get("ACME")]

def raising(argument):
    raise LookupError("no such model")

def leaving(argument):
    sys.exit(0)

def ended(argument):
    os._exit(argument)

def killed(argument):
    os.kill(os.getpid(), argument)

def working(argument):
    while True:
        pass

def holding(argument):
    return len(bytearray(2 << 30))

def long(argument):
    return "x" * argument

def importing(argument):
    try:
        importlib.import_module(argument)
    except ModuleNotFoundError:
        return importlib.util.find_spec(argument)
    return "imported"

def parenting(argument):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(argument + ".new", "w") as file:
        print(os.getpid(), child.pid, file=file)
    os.rename(argument + ".new", argument)
    time.sleep(60)
"""
ENOUGH = Limits(seconds=60)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Call]:
    """Makes the call of a function of `MODULE`, which only the paths of this process lead to."""
    name = f"acme_called_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda function, argument=None, limits=ENOUGH: Call(f"{name}:{function}", argument, limits, {"ACME": "us"})


def failure(call: Call) -> NoAnswerError:
    with pytest.raises(NoAnswerError) as caught:
        called(call)
    return caught.value


def gone(pid: int) -> bool:
    """Whether a process has ended, though nobody may have waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def soon(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 30
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def test_what_it_returns_is_what_the_function_returns_and_nothing_that_it_prints(call: Callable[..., Call]) -> None:
    given = {"a": [1, None, 0.5, "سلام \ud800"]}
    assert called(call("doubled", given)) == [given, given, "us"]


def test_it_does_without_packages_as_if_they_were_not_installed(call: Callable[..., Call]) -> None:
    asked = call("importing", "wave")
    assert (called(asked), called(evolve(asked, without=("wave",)))) == ("imported", None)


@pytest.mark.parametrize(
    ("function", "argument", "limits", "reason", "status", "limit"),
    [
        ("raising", None, ENOUGH, "LookupError: no such model", None, None),
        ("leaving", None, ENOUGH, "SystemExit: 0", None, None),
        ("missing", None, ENOUGH, "AttributeError: module", None, None),
        ("ended", 3, ENOUGH, "its process ended with status 3", 3, None),
        ("killed", signal.SIGSEGV, ENOUGH, "its process ended with status -11", -11, None),
        ("working", None, Limits(seconds=1.1), "its process ended with status -9", -9, "time"),
        ("working", None, Limits(seconds=60, processor=1), "its process ended with status -24", -24, "time"),
        ("holding", None, Limits(seconds=60, memory=1 << 30), "MemoryError", None, "memory"),
        ("long", 1000, Limits(seconds=60, answer=1000), "ValueError: it gives 1,016 bytes", None, None),
    ],
)
def test_why_there_is_no_answer_is_said(
    call: Callable[..., Call],
    function: str,
    argument: Any,
    limits: Limits,
    reason: str,
    status: int | None,
    limit: str | None,
) -> None:
    error = failure(call(function, argument, limits))
    assert str(error).startswith(reason)
    assert (error.status, error.limit) == (status, limit)


def test_what_is_no_plain_data_is_a_mistake_of_the_caller(call: Callable[..., Call]) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        called(call("doubled", object()))


@pytest.mark.parametrize("program", [None, "", "/usr/bin/blender", "{tmp}/python-no-more"])
def test_without_an_interpreter_nothing_is_started(
    call: Callable[..., Call], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", program and program.format(tmp=tmp_path))
    assert str(failure(call("doubled"))).startswith("no process can be started: ")


def test_leaving_ends_also_what_it_started(call: Callable[..., Call], tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with Child(call("parenting", str(file))) as child:
        assert soon(file.exists)
        assert not child.ended
    assert soon(lambda: all(gone(int(pid)) for pid in file.read_text().split()))


def test_it_ends_with_the_process_that_asked(call: Callable[..., Call], tmp_path: Path) -> None:
    file = tmp_path / "pids"
    made = call("parenting", str(file))
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; from modelmerger.hooks.inquiries.child import *; "
        f"called(Call({made.function!r}, {made.argument!r}, Limits(seconds=60)))"
    )
    asking = subprocess.Popen([sys.executable, "-c", program])
    assert soon(file.exists)
    asking.kill()
    asking.wait()
    own, started = map(int, file.read_text().split())
    assert soon(lambda: gone(own))
    os.kill(started, signal.SIGKILL)
