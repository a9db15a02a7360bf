"""A progress bar on a terminal: bytes, rate and time left; or steps, and what is being done. Nothing in a pipe."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from modelmerger.text import shown


def no_progress(_: int, __: int) -> None:
    """Progress that nobody watches."""


@contextlib.contextmanager
def shown_progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A function of bytes done and bytes in all that draws on stderr while the context lasts."""
    if not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(description, total=None)

    def draw(done: int, total: int) -> None:
        progress.start()  # not before there is something to show: models may be fetched first, with bars of their own
        progress.update(task, completed=done, total=total)

    try:
        yield draw
    finally:
        if progress.live.is_started:
            progress.stop()


def no_step(_: str, __: int, ___: int) -> None:
    """A step that nobody watches."""


@contextlib.contextmanager
def shown_steps(description: str) -> Iterator[Callable[[str, int, int], None]]:
    """A function of what is done next, steps done and steps in all that draws on stderr while the context lasts."""
    if not sys.stderr.isatty():
        yield no_step
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(description, total=None)

    def draw(what: str, done: int, total: int) -> None:
        progress.start()
        progress.update(
            task, description=escape(f"{description} {shown(what, 40)}"), completed=done, total=total, refresh=True
        )

    try:
        yield draw
    finally:
        if progress.live.is_started:
            progress.stop()
