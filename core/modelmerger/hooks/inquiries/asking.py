"""Asks inquiries: starts a process for each, sees what has been answered, and ends what is still running."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Self

from modelmerger.values.errors import ModelCompatibilityError, OutputError, Problem, Severity, raise_errors
from modelmerger.values.text import shown
from modelmerger.values.work.figures import Figures, Rows
from modelmerger.values.work.inquiry import Inquiry

if TYPE_CHECKING:
    from modelmerger.hooks.inquiries.child import Child

SECONDS = 120
"""How long an answer may take, on the clock and of the processor."""
MEMORY = 8 << 30
"""Bytes that the process may hold."""
PATIENCE = 0.02
"""Seconds between two looks at a process, for who waits, so that signals are handled in time."""
WITHOUT = "Give options.check_loading: false to merge without knowing"


class Asked:
    """Inquiries that are being answered for as long as the context lasts; leaving it ends every process of theirs.

    An inquiry that costs little here, since what it needs is imported, is answered on entering, which raises errors.
    unanswered: how bad it is not to get an answer; of a "note", nothing is said that could be done. strict: whether
    warnings are errors. seconds: how long an answer may take, on the clock and of the processor; None: `SECONDS`.
    Any thread may look.
    """

    def __init__(
        self,
        inquiries: Sequence[Inquiry],
        unanswered: Severity = "warning",
        *,
        strict: bool = False,
        seconds: int | None = None,
    ) -> None:
        self._inquiries = inquiries
        self._unanswered = unanswered
        self._strict = strict
        self._seconds = SECONDS if seconds is None else seconds
        self._found: list[Problem] = []
        self._figures: list[Figures] = []
        self._running: list[tuple[Inquiry, Child]] = []
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
            for inquiry, child in [running for running in self._running if running[1].ended]:
                self._running.remove((inquiry, child))
                self._add(inquiry, partial(self._answer_of, child))
            raise_errors(self._found, ModelCompatibilityError, strict=self._strict)

    def answers(self) -> list[Problem]:
        """Waits for all answers. Returns their warnings and notes, and raises `ModelCompatibilityError` with errors."""
        while True:
            self.look()
            if not self._running:
                return list(self._found)
            time.sleep(PATIENCE)

    @property
    def figures(self) -> dict[str, Rows]:
        """The figures that are known by now: rows by title."""
        return {one.title: one.rows for one in self._figures}

    def _ask(self, inquiry: Inquiry, closing: ExitStack) -> None:
        from modelmerger.hooks.inquiries.answering import answer
        from modelmerger.hooks.inquiries.child import Call, Child, Limits, without_process
        from modelmerger.output.scratch import Scratch

        cheap = inquiry.costs and all(module in sys.modules for module in inquiry.costs)
        alone = without_process()
        if alone and not cheap:
            message = f"{alone}, so this process itself finds out {inquiry.question}."
            self._found.append(Problem(message, severity="note"))
        if cheap or alone:
            self._add(inquiry, lambda: answer(inquiry.function, inquiry.argument))
            return
        argument = {"function": inquiry.function, "argument": inquiry.argument}
        limits = Limits(seconds=self._seconds, processor=self._seconds, memory=MEMORY)
        environment = dict(inquiry.environment)
        with suppress(OutputError):  # what a process that is ended leaves there goes with the context
            environment.setdefault("TMPDIR", str(closing.enter_context(Scratch(None)).path))
        child = Child(Call(f"{__package__}.answering:as_plain_data", argument, limits, environment, inquiry.without))
        self._running.append((inquiry, closing.enter_context(child)))

    def _add(self, inquiry: Inquiry, find: Callable[[], Iterable[Problem | Figures]]) -> None:
        """Adds what was found; that it is not known, where finding it out failed, in whatever way."""
        try:
            found = list(find())
            self._figures += [one for one in found if isinstance(one, Figures)]
            self._found += [one for one in found if not isinstance(one, Figures)]
        except Exception as error:
            from modelmerger.hooks.inquiries.child import NoAnswerError

            reason = str(error) if isinstance(error, NoAnswerError) else f"{type(error).__name__}: {error}"
            message = f"it is not known {inquiry.question}: {shown(reason, 150).rstrip('.')}."
            if self._unanswered != "note":
                message += f" {WITHOUT}."
            self._found.append(Problem(message, severity=self._unanswered))

    def _answer_of(self, child: "Child") -> list[Problem | Figures]:
        """What it found. Raises `NoAnswerError`."""
        from modelmerger.hooks.inquiries.answering import from_plain_data
        from modelmerger.hooks.inquiries.child import NoAnswerError

        try:
            return from_plain_data(child.answer())
        except NoAnswerError as error:
            if error.status is None:
                raise
            ended = f"was ended by signal {-error.status}, or took over {self._seconds} s"
            how = ended if error.status < 0 else f"ended with status {error.status}"
            raise NoAnswerError(f"what finds it out {how}", error.status) from error
