"""What the page cache holds of a file, as the system says without reading anything (cachestat, Linux 6.5)."""

import ctypes
import functools
import sys

_CACHESTAT = 451
"""The number of the system call, the same on every architecture."""


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Found(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cached", "dirty", "written", "evicted", "lately"))


@functools.cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def cached_pages(descriptor: int, begin: int, end: int) -> int | None:
    """How many pages are there that hold the bytes from `begin` to `end`; None where the system does not say."""
    found, libc = _Found(), _libc()
    if libc is None:
        return None
    span = _Range(begin, end - begin)
    done = libc.syscall(_CACHESTAT, descriptor, ctypes.byref(span), ctypes.byref(found), 0)
    return int(found.cached) if done == 0 else None
