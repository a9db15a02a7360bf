"""Writing past the page cache: whole pages go to the device from the memory that they are in, the rest as ever."""

import errno
import fcntl
import os
import threading

from modelmerger.inputs.direct.aligned import page_of
from modelmerger.output.entries import write_all_at

DIRECT: int = getattr(os, "O_DIRECT", 0)
"""The flag of a descriptor that is written to so; 0 where the system has no such thing."""
_through_cache = threading.Lock()
"""Held while a descriptor is without the flag: of two threads, the first to end would give it back too early."""


def write_past_cache(descriptor: int, content: memoryview, offset: int) -> None:
    """Writes all of the content to a descriptor that was opened with `DIRECT`, from an offset on.

    What does not begin and end with a page (the end of a file), and what lies in memory that the device cannot read
    from, goes through the page cache. Raises `OSError`.
    """
    whole = page_of(len(content)) if offset == page_of(offset) else 0
    try:
        write_all_at(descriptor, content[:whole], offset)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        whole = 0
    if whole < len(content):
        with _through_cache:
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~DIRECT)  # what is written meanwhile is as good either way
            try:
                write_all_at(descriptor, content[whole:], offset + whole)
            finally:
                fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
