"""SIGINT and SIGTERM as exceptions in the main thread, at moments when that does no harm."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_IMPORTING = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
_COMMAND_LINE = "modelmerger.cli.process"
_SOON = 0.05


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception."""


class Interrupts:
    """What a first and a further signal do."""

    def __init__(self) -> None:
        self.said = False
        """Whether the user was told already."""
        self.terminated = False
        """Whether SIGTERM came. What a library makes of the exception may not say so."""
        self._raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The first signal raises, as soon as no module is being imported: half of one cannot be used or tried again.

        A further one ends the process at once, as a kill would, which a merge survives.
        """
        if self._raised:
            if not self.said:
                with contextlib.suppress(OSError):
                    os.write(2, b"error: interrupted.\n")
            os._exit(128 + number)
        if _is_importing(frame):
            again = threading.Timer(_SOON, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        self._raised = True
        self.terminated = number == signal.SIGTERM
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def install(self) -> dict[int, Callable[..., object] | int | None]:
        """Handles the signals that are not ignored. Returns what did so before."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        asked = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        return {number: signal.signal(number, self) for number in asked}


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Handles signals while the context lasts."""
    found = Interrupts()
    before = found.install()
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether the command line is importing something; whoever imports what called it, is no matter."""
    while frame is not None and frame.f_globals.get("__name__") != _COMMAND_LINE:
        if frame.f_code.co_filename in _IMPORTING:
            return True
        frame = frame.f_back
    return False
