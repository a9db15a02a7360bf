"""A progress bar on a terminal: bytes, rate and time left. Nothing in a pipe."""

import contextlib
import sys
from collections.abc import Callable, Iterator


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
