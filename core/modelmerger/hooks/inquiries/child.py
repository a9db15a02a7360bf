"""A function that a process of its own calls: plain data in, plain data out, within limits, and ended as a whole."""

import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import IO, Any, Literal, Self

from attrs import field, frozen

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl."""
_OF_TIME = (signal.SIGALRM, signal.SIGXCPU)


@frozen(kw_only=True)
class Limits:
    """What the process may take before it is ended."""

    seconds: float
    """On the clock, its start included."""
    processor: int | None = None
    """Seconds of the processor, from when the module of the function is imported."""
    memory: int | None = None
    """Bytes that it may hold."""
    answer: int = 64 << 20
    """Bytes of what the function gives back, as JSON."""


class NoAnswerError(Exception):
    """Why there is no answer: the process did not start or was ended, or the function raised an error."""

    def __init__(self, reason: str, status: int | None = None, limit: Literal["time", "memory"] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        """How the process ended without a word, as `subprocess` has it."""
        self.limit = limit
        """What it took too much of, as far as that is known."""


@frozen
class Call:
    """A function, what it is given, and what the process has that calls it."""

    function: str
    """`module:function`. Its module is imported in that process alone. It takes one argument."""
    argument: Any
    """Plain JSON, as what the function returns."""
    limits: Limits
    environment: Mapping[str, str] = field(factory=dict)
    """Variables beside those of this process."""
    without: tuple[str, ...] = ()
    """Packages that cannot be imported there, as if they were not installed."""


def without_process() -> str | None:
    """Why no other process can be started that runs this interpreter; None where one can."""
    name = os.path.basename(sys.executable or "")
    return None if name.startswith(("python", "pypy")) else "this program is no Python interpreter"


def called(call: Call) -> Any:
    """What the function returns. Waits for it. Raises `NoAnswerError`; and `TypeError` for what is no plain data."""
    with Child(call) as child:
        return child.answer()


class Child:
    """The process of a call for as long as the context lasts; leaving it ends the process and those that it started.

    Where no process can be started, `answer` says so. Entering raises `TypeError` for what is no plain data.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = ExitStack()
        self._unstarted = without_process()

    def __enter__(self) -> Self:
        if self._unstarted:
            return self
        limits = self._call.limits
        request = [self._call.function, self._call.argument, self._call.without]
        numbers = [math.ceil(limits.seconds), os.getpid(), limits.processor, limits.memory, limits.answer]
        content = json.dumps([*request, *numbers]).encode()
        try:
            with ExitStack() as closing:
                # files, since nothing waits for the other end of those
                asked, self._answered = (closing.enter_context(tempfile.TemporaryFile()) for _ in range(2))
                asked.write(content)
                asked.seek(0)
                self._process = _started(asked, self._answered, self._call.environment)
                self._until = time.monotonic() + limits.seconds
                self._closing = closing.pop_all()
        except OSError as error:
            self._unstarted = str(error)
        return self

    def __exit__(self, *_: object) -> None:
        with self._closing:
            self._end()

    @property
    def ended(self) -> bool:
        """Whether it has ended; it is ended where it takes too long."""
        if self._process is not None and time.monotonic() > self._until:
            self._end()
        return self._process is None or self._process.poll() is not None

    def answer(self) -> Any:
        """What the function returned. Waits for it, and raises `NoAnswerError` where there is none."""
        if self._process is None:
            raise NoAnswerError(f"no process can be started: {self._unstarted}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, self._until - time.monotonic()))
        late = time.monotonic() > self._until
        if status := self._end():
            limit: Literal["time"] | None = "time" if late or -status in _OF_TIME else None
            raise NoAnswerError(f"its process ended with status {status}", status, limit)
        self._answered.seek(0)
        told = json.load(self._answered)
        if "raised" in told:
            raise NoAnswerError(told["raised"], limit="memory" if told["memory"] else None)
        return told["returned"]

    def _end(self) -> int | None:
        """Ends it with all of its group, which has its number for as long as nobody waited for it. Returns how."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return None if self._process is None else self._process.wait()


def _started(asked: IO[bytes], answered: IO[bytes], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The interpreter finds the modules where this one does."""
    program = f"import sys; sys.path[:] = {[*map(os.path.abspath, sys.path)]!r}; from {__name__} import main; main()"
    return subprocess.Popen(  # noqa: S603 (this interpreter, and a text of our own)
        [sys.executable, "-c", program],
        stdin=asked,
        stdout=answered,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
        process_group=0,
    )


def main() -> None:
    """Makes the call that standard input holds, and writes what came of it to standard output, as JSON."""
    gc.disable()  # it would spend a fifth of a second on what torch makes as it is imported
    function, argument, without, seconds, parent, processor, memory, most = json.load(sys.stdin)
    _end_with(parent, seconds)
    sys.modules.update(dict.fromkeys(without))  # None stands for a module that is not there
    with os.fdopen(os.dup(1), "w") as answered:
        os.dup2(2, 1)  # whatever else prints
        try:
            module, _, name = function.partition(":")
            call = getattr(importlib.import_module(module), name)
            _keep_to(processor, memory)
            told = json.dumps({"returned": call(argument)})
            if len(told) > most:
                raise ValueError(f"it gives {len(told):,} bytes, and at most {most:,} are taken")
        except BaseException as error:
            memory = isinstance(error, MemoryError)
            told = json.dumps({"raised": f"{type(error).__name__}: {error}", "memory": memory})
        answered.write(told)
    os._exit(0)  # what was imported need not be taken apart


def _end_with(parent: int, seconds: int) -> None:
    """The system ends this process when it takes too long even if nobody waits for it, and when nobody is left."""
    signal.alarm(seconds)
    with contextlib.suppress(AttributeError):  # of Linux alone
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _keep_to(processor: int | None, memory: int | None) -> None:
    """Limits of time count from here."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = None if processor is None else math.ceil(used.ru_utime + used.ru_stime) + processor
    for kind, most in ((resource.RLIMIT_CPU, until), (resource.RLIMIT_DATA, memory)):
        hard = resource.getrlimit(kind)[1]
        if most is not None:
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
