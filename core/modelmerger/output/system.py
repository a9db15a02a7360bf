"""System calls that Python does not offer: an atomic exchange, a rename that never replaces, early writeback."""

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_SYNC_FILE_RANGE_WRITE = 2
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP}


class ExchangeUnsupportedError(OSError):
    """The file system cannot exchange two directories at once."""


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _renameat2(source: Path, target: Path, flags: int) -> None:
    libc = _libc()
    if libc is None or not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def rename_new(source: Path, target: Path) -> None:
    """Renames a directory to a name that nothing has. `FileExistsError` where something has it.

    Where the file system knows no such rename, the name is looked for first: of what may appear in that instant, the
    system's own rename replaces an empty directory alone.
    """
    try:
        _renameat2(source, target, _NOREPLACE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        try:
            source.rename(target)
        except OSError as late:
            if late.errno not in (errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None


def exchange(first: Path, second: Path) -> None:
    """Exchanges two directories at once. `ExchangeUnsupportedError` where that cannot be had."""
    try:
        _renameat2(first, second, _EXCHANGE)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise ExchangeUnsupportedError(error.errno, os.strerror(error.errno or 0)) from error
        raise


def can_exchange(folder: Path) -> bool:
    """Whether directories of this file system can be exchanged. folder: where two may be made. Raises `OSError`."""
    first, second = folder / "first", folder / "second"
    first.mkdir()
    second.mkdir()
    try:
        exchange(first, second)
    except ExchangeUnsupportedError:
        return False
    finally:
        first.rmdir()
        second.rmdir()
    return True


def free_bytes(folder: Path) -> int | None:
    """How many bytes the disk of a folder has left for this user; None where its file system does not say.

    Raises `OSError` for a folder that cannot be looked at.
    """
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return disk.f_bavail * (disk.f_frsize or disk.f_bsize) if disk.f_bavail or disk.f_blocks else None


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Asks the system to begin writing these bytes to the disk, so that fsync finds less to do. Waits for nothing."""
    if (libc := _libc()) is not None and hasattr(libc, "sync_file_range"):
        libc.sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)
