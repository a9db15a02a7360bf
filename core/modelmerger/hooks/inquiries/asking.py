"""Asks inquiries: starts a process for each, sees what has been answered, and ends what is still running."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import IO, NoReturn, Self

from attrs import frozen

from modelmerger.hooks.inquiries.answering import SECONDS, answer
from modelmerger.values.errors import ModelCompatibilityError, Problem, Severity, raise_errors
from modelmerger.values.text import shown
from modelmerger.values.work.inquiry import Inquiry

PATIENCE = 0.02
"""Seconds between two looks at a process, for who waits, so that signals are handled in time."""
WITHOUT = "Give options.check_loading: false to merge without knowing"


class Asked:
    """Inquiries that are being answered for as long as the context lasts; leaving it ends every process of theirs.

    An inquiry that costs little here, since what it needs is imported, is answered on entering, which raises errors.
    unanswered: how bad it is not to get an answer. strict: whether warnings are errors. Any thread may look.
    """

    def __init__(self, inquiries: Sequence[Inquiry], unanswered: Severity = "warning", *, strict: bool = False) -> None:
        self._inquiries = inquiries
        self._unanswered = unanswered
        self._strict = strict
        self._found: list[Problem] = []
        self._running: list[_Process] = []
        self._lock = threading.Lock()
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            for inquiry in self._inquiries:
                self._ask(inquiry, closing)
            self.look()
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def look(self) -> None:
        """Raises `ModelCompatibilityError` with the errors that are known by now. Does not wait."""
        with self._lock:
            for process in [process for process in self._running if process.ended]:
                self._running.remove(process)
                self._add(process.inquiry, process.answer)
            raise_errors(self._found, ModelCompatibilityError, strict=self._strict)

    def answers(self) -> list[Problem]:
        """Waits for all answers. Returns their warnings and notes, and raises `ModelCompatibilityError` with errors."""
        while True:
            self.look()
            if not self._running:
                return list(self._found)
            time.sleep(PATIENCE)

    def _ask(self, inquiry: Inquiry, closing: ExitStack) -> None:
        cheap = inquiry.costs and all(module in sys.modules for module in inquiry.costs)
        alone = _without_process()
        if alone and not cheap:
            message = f"{alone}, so this process itself finds out {inquiry.question}."
            self._found.append(Problem(message, severity="note"))
        if cheap or alone:
            self._add(inquiry, lambda: answer(inquiry.function, inquiry.argument))
            return
        try:
            self._running.append(closing.enter_context(_Process(inquiry)))
        except OSError as error:
            self._add(inquiry, partial(_fail, f"no process can be started: {error}"))

    def _add(self, inquiry: Inquiry, find: Callable[[], Iterable[Problem]]) -> None:
        """Adds what was found; that it is not known, where finding it out failed, in whatever way."""
        try:
            self._found += find()
        except Exception as error:
            reason = str(error) if isinstance(error, _FailedError) else f"{type(error).__name__}: {error}"
            message = f"it is not known {inquiry.question}: {shown(reason, 150).rstrip('.')}. {WITHOUT}."
            self._found.append(Problem(message, severity=self._unanswered))


class _FailedError(Exception):
    """A process that gave no answer, and why."""


def _fail(reason: str) -> NoReturn:
    raise _FailedError(reason)


def _without_process() -> str | None:
    """Why no other process can be started that runs this interpreter; None where one can."""
    name = os.path.basename(sys.executable or "")
    return None if name.startswith(("python", "pypy")) else "this program is no Python interpreter"


@frozen(eq=False)
class _Files:
    """What a process reads and writes: files, since nothing waits for the other end of those."""

    asked: IO[bytes]
    answered: IO[bytes]
    said: IO[bytes]


class _Process:
    """The process that answers an inquiry."""

    def __init__(self, inquiry: Inquiry) -> None:
        self.inquiry = inquiry

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            self._files = _Files(*(closing.enter_context(tempfile.TemporaryFile()) for _ in range(3)))
            request = {"function": self.inquiry.function, "argument": self.inquiry.argument}
            self._files.asked.write(json.dumps(request).encode())
            self._files.asked.seek(0)
            self._process = subprocess.Popen(  # noqa: S603 (this interpreter, and a text of our own)
                [sys.executable, "-c", _program()],
                stdin=self._files.asked,
                stdout=self._files.answered,
                stderr=self._files.said,
                env={**os.environ, **self.inquiry.environment},
            )
            self._until = time.monotonic() + SECONDS
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._closing:
            self._process.kill()
            self._process.wait()

    @property
    def ended(self) -> bool:
        """Whether it has ended; it is ended where it takes too long."""
        if time.monotonic() > self._until:
            self._process.kill()
            return True
        return self._process.poll() is not None

    def answer(self) -> list[Problem]:
        """What it found. Raises `_FailedError` where it ended without an answer."""
        status = self._process.wait()
        if status < 0:
            raise _FailedError(f"what finds it out was ended by signal {-status}, or took over {SECONDS} s")
        if status > 0:
            self._files.said.seek(0)
            last = self._files.said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise _FailedError(last or f"what finds it out ended with status {status}")
        self._files.answered.seek(0)
        return [Problem(**problem) for problem in json.load(self._files.answered)]


def _program() -> str:
    """What the process runs: it finds the modules where this one does."""
    return f"import sys; sys.path[:] = {sys.path!r}; from {answer.__module__} import main; main()"
