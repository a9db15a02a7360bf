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
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
