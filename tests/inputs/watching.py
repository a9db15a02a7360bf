"""What the interpreter does while something runs: files it opens, code it compiles or executes, sockets, processes, pickles.

Python's audit hooks cannot be removed, so there is one for the whole process, which notes nothing while nobody watches.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import field, mutable

PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
NETWORK = ("socket.", "urllib.", "http.client.", "ftplib.", "smtplib.", "ssl.")


@mutable
class Seen:
    """opened: paths. code: the file names of what was compiled or executed. imported: modules. network, processes: events."""

    opened: list[str] = field(factory=list)
    code: list[str] = field(factory=list)
    imported: list[str] = field(factory=list)
    network: list[str] = field(factory=list)
    processes: list[str] = field(factory=list)
    unpickled: list[str] = field(factory=list)

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            self.opened.append(_text(arguments[0]))
        elif event == "exec":
            self.code.append(str(getattr(arguments[0], "co_filename", "")))
        elif event == "compile":
            self.code.append(_text(arguments[1]))
        elif event == "import":
            self.imported.append(str(arguments[0]))
        elif event.startswith(NETWORK):
            self.network.append(f"{event} {arguments[1:]}")
        elif event in PROCESSES:
            self.processes.append(f"{event} {arguments}")
        elif event.startswith("pickle."):
            self.unpickled.append(f"{arguments}")

    def opened_in(self, folder: object) -> list[str]:
        return [path for path in self.opened if path.startswith(f"{folder}/") or path == str(folder)]

    def code_in(self, folder: object) -> list[str]:
        """Code from files below a folder, or of templates (jinja2 compiles them under the name `<template>`)."""
        return [name for name in self.code if name.startswith(f"{folder}/") or name == "<template>"]


def _text(path: object) -> str:
    return path.decode(errors="surrogateescape") if isinstance(path, bytes) else str(path)


_watchers: list[Seen] = []
_installed: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for seen in _watchers:
        seen.note(event, arguments)


@contextmanager
def watched(seen: Seen | None = None) -> Iterator[Seen]:
    """Notes what happens inside, in every thread."""
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    seen = Seen() if seen is None else seen
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)


def watched_reads(note: Callable[[], object]) -> Callable[..., int]:
    """`os.preadv` that notes reads of tensors: of what lies behind the header, which says its own length in 8 bytes.

    To ask for one byte without waiting is no reading: that is how to find out what the page cache holds.
    """
    preadv = os.preadv

    def reading(descriptor: int, buffers: Any, offset: int, *flags: int) -> int:
        looks = bool(flags) and len(buffers[0]) == 1
        if not looks and offset >= 8 + int.from_bytes(os.pread(descriptor, 8, 0), "little"):
            note()
        return preadv(descriptor, buffers, offset, *flags)

    return reading


class HangError(BaseException):
    """Not an `Exception`, so that nothing that is tested can take it for its own."""


@contextmanager
def at_once() -> Iterator[None]:
    """Stopped after 20 seconds of processor time, or a minute of the clock.

    A slow and busy machine needs a tenth of that for what is right; what is quadratic, or waits, needs more.
    """

    def stop(*_: object) -> None:
        raise HangError

    signals = {signal.ITIMER_REAL: (signal.SIGALRM, 60), signal.ITIMER_PROF: (signal.SIGPROF, 20)}
    before = {sent: signal.signal(sent, stop) for sent, _ in signals.values()}
    for timer, (_, seconds) in signals.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in signals:
            signal.setitimer(timer, 0)
        for sent, handler in before.items():
            signal.signal(sent, handler)
