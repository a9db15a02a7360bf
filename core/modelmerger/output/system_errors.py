"""What the system says about writing, as sentences about the output."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from modelmerger.values.errors import OutputError, Problem


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turns what the system says about writing into `OutputError` with the path."""
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


def output_error(path: Path, error: OSError) -> OutputError:
    """What the system said about writing to a path, and what to do about it."""
    reason = error.strerror or type(error).__name__
    room = " Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else " Check the disk"
    return OutputError(Problem(f"cannot be written: {reason}.{room}, then run the same command again.", str(path)))
