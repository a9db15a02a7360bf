"""Progress bars on a terminal or in a notebook: bytes, rate and time left, or tasks. Nothing in a pipe."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from modelmerger.values.text import shown

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

_CLEAR = "\r\x1b[K"
"""Clears the line of a terminal."""


@contextlib.contextmanager
def show_progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on stderr while the context lasts, which gives a function of bytes done and bytes in all."""
    if not _somebody_sees_it():
        yield lambda _, __: None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with _starting(), _drawn(columns) as update:
        yield lambda done, total: update(description=description, completed=done, total=total)


@contextlib.contextmanager
def show_tasks(description: str, *, first: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Shows a bar on stderr while the context lasts, which gives a function of the next task, tasks done and tasks.

    first: whether nothing was shown before.
    """
    if not _somebody_sees_it():
        yield lambda _, __, ___: None
        return
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with _starting() if first else contextlib.nullcontext(), _drawn(columns) as update:

        def draw(what: str, done: int, total: int) -> None:
            doing = escape(f"{description} {shown(what, 40)}")
            update(description=doing, completed=done, total=total, refresh=True)

        yield draw


@contextlib.contextmanager
def _drawn(columns: "Iterable[ProgressColumn]") -> Iterator[Callable[..., None]]:
    """Shows a bar on stderr while the context lasts, which gives a function like rich's `Progress.update`."""
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task("", total=None)

    def update(**fields: Any) -> None:
        progress.start()  # not earlier, because models may be downloaded first, with bars of their own
        progress.update(task, **fields)

    try:
        yield update
    finally:
        if progress.live.is_started:
            progress.stop()


def _somebody_sees_it() -> bool:
    """Whether stderr is a terminal, or this is a notebook, and no bar is there already.

    While rich shows one, what is written to stderr comes to stand above it, and stays: also what is to be overwritten.
    """
    return not type(sys.stderr).__module__.startswith("rich.") and (sys.stderr.isatty() or _in_notebook())


def _in_notebook() -> bool:
    """As rich tells one from other shells of IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell" or "google.colab" in str(type(shell))


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Shows that something is done before there is anything to count: importing torch takes a second and more."""
    if _in_notebook():
        yield
        return
    sys.stderr.write("starting …\r")  # what is said next stands in its place
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()
