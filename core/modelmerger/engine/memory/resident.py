"""The memory of this process: how much it is, as the system counts it, and when it goes back to the system."""

import contextlib
import ctypes
import re
import resource
import sys
from pathlib import Path

MAPPED = 6 << 20
"""Bytes from which on memory is taken from the system, and goes back when it is freed. Slices are smaller."""
KEPT = 4 * MAPPED
"""Bytes that were freed and are kept for what comes next. The C library would give back all but 128 KiB, and the first
use of each page of a new slice costs more than the arithmetic on it."""
_PROCESS = Path("/proc/self")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def resident() -> tuple[int, int]:
    """Resident bytes now, and at their peak so far. Where the system tells the peak alone, that is both."""
    with contextlib.suppress(OSError):
        status = (_PROCESS / "status").read_text()
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
        if len(found) == 2:
            return int(found["VmRSS"]) << 10, int(found["VmHWM"]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
    return peak, peak


def forget_peak() -> None:
    """From now on the peak is that of what comes, where the system can do that."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def give_back() -> None:
    """Gives memory that was freed back to the system, where the C library can do that."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def map_from(size: int = MAPPED) -> None:
    """Memory of so many bytes or more goes back to the system as soon as it is freed, where the C library can do that.

    Otherwise it is kept for the thread that had it, in pieces that the next tensor may not fit in. This is about the
    whole process, so a command calls it, and not a library.
    """
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, size)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT)
