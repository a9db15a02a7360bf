"""Regular files alone are opened: no link, no directory, and nothing that could keep one waiting."""

import os
import stat
from pathlib import Path

from modelmerger.values.errors import InputError, Problem


def open_regular(path: Path | str) -> int:
    """A read-only descriptor of a regular file. Raises `InputError`.

    Never follows a link in the last part, never waits on a FIFO or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise InputError(Problem(f"cannot be opened: {error.strerror}.", str(path))) from error
    if not stat.S_ISREG(status_of(descriptor, path).st_mode):
        os.close(descriptor)
        raise InputError(Problem("is not a regular file. Give a file, not a directory, FIFO or device.", str(path)))
    return descriptor


def read_small(path: Path, limit: int) -> bytes:
    """The whole of a regular file of at most `limit` bytes."""
    with os.fdopen(open_small(path, limit), "rb") as file:
        try:
            return file.read(limit)
        except OSError as error:
            raise InputError(Problem(f"cannot be read: {error.strerror}.", str(path))) from error


def open_small(path: Path, limit: int) -> int:
    """`open_regular` for a file of at most `limit` bytes."""
    descriptor = open_regular(path)
    length = status_of(descriptor, path).st_size
    if length > limit:
        os.close(descriptor)
        raise InputError(
            Problem(f"is {length:,} bytes long, more than the {limit:,} allowed for such a file.", str(path))
        )
    return descriptor


def status_of(descriptor: int, path: Path | str) -> os.stat_result:
    """What the system says of an open file, which is closed if that cannot be had."""
    try:
        return os.fstat(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise InputError(Problem(f"cannot be read: {error.strerror}.", str(path))) from error
