"""Input files: opened only if regular, identified by what `stat` says of them, read by position, few open at a time."""

import contextlib
import os
import stat
import threading
from pathlib import Path

from modelmerger.values.errors import InputChangedError, InputError, Problem
from modelmerger.values.file_identity import FileIdentity, identify


def open_regular(path: Path | str) -> int:
    """A read-only descriptor of a regular file. Never follows a link in the last part, never waits on a FIFO or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise InputError(Problem(f"cannot be opened: {error.strerror}.", str(path))) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(Problem("is not a regular file. Give a file, not a directory, FIFO or device.", str(path)))
    return descriptor


def read_small(path: Path, limit: int) -> bytes:
    """The whole of a regular file of at most `limit` bytes."""
    with os.fdopen(_open_small(path, limit), "rb") as file:
        try:
            return file.read(limit)
        except OSError as error:
            raise InputError(Problem(f"cannot be read: {error.strerror}.", str(path))) from error


def check_small(path: Path, limit: int) -> None:
    """Raises what `read_small` would raise, and reads nothing."""
    os.close(_open_small(path, limit))


def _open_small(path: Path, limit: int) -> int:
    descriptor = open_regular(path)
    length = os.fstat(descriptor).st_size
    if length > limit:
        os.close(descriptor)
        raise InputError(
            Problem(f"is {length:,} bytes long, more than the {limit:,} allowed for such a file.", str(path))
        )
    return descriptor


class _OpenFile:
    """A descriptor, closed when nobody holds this object any more: a reader keeps what it reads from, whatever was put aside."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class InputFiles:
    """The files that a merge reads, each checked against its identity when it is opened again.

    At most `limit` are kept open, the newest ones; a reader keeps the one it reads from for so long. What is open is found without
    a lock, for every slice of every input is read through here.
    """

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._open: dict[FileIdentity, _OpenFile] = {}

    def read(self, file: FileIdentity, offset: int, buffer: memoryview) -> None:
        """Fills the buffer from the offset. A file that ends early, or is another one by now, raises `InputChangedError`."""
        opened = self._opened(file)
        while length := len(buffer):
            try:
                count = os.preadv(opened.descriptor, (buffer,), offset)
            except OSError as error:
                raise InputError(Problem(f"cannot be read: {error.strerror}.", file.path)) from error
            if count == length:
                return
            if count == 0:
                raise InputChangedError(_changed(file, "is shorter than when the merge was planned"))
            buffer, offset = buffer[count:], offset + count

    def prefetch(self, file: FileIdentity, offset: int, length: int) -> None:
        """Tells the system what will be read soon, where it can be told. What is in memory, by the look of its ends, is left alone."""
        if length > 0 and hasattr(os, "posix_fadvise"):
            opened = self._opened(file)
            with contextlib.suppress(OSError):
                if not (_in_memory(opened.descriptor, offset) and _in_memory(opened.descriptor, offset + length - 1)):
                    os.posix_fadvise(opened.descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        with self._lock:
            self._open.clear()

    def _opened(self, file: FileIdentity) -> _OpenFile:
        return self._open.get(file) or self._reopened(file)

    def _reopened(self, file: FileIdentity) -> _OpenFile:
        with self._lock:
            if (opened := self._open.get(file)) is None:
                while len(self._open) >= self._limit:
                    del self._open[next(iter(self._open))]
                opened = self._open[file] = _OpenFile(_reopen(file))
            return opened


def _in_memory(descriptor: int, offset: int) -> bool:
    """Whether a byte of a file can be read without waiting for a device. To ask costs a tenth of telling what is there already."""
    try:
        return hasattr(os, "RWF_NOWAIT") and os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def recheck(file: FileIdentity) -> None:
    """Raises `InputChangedError` when the path no longer leads to the same file with the same content."""
    try:
        now = os.stat(file.path, follow_symlinks=False)
    except OSError as error:
        raise InputChangedError(_changed(file, f"cannot be found any more ({error.strerror})")) from error
    if identify(file.path, now) != file:
        raise InputChangedError(_changed(file, _difference(file, identify(file.path, now))))


def _reopen(file: FileIdentity) -> int:
    try:
        descriptor = open_regular(file.path)
    except InputError as error:
        raise InputChangedError(_changed(file, "cannot be opened any more")) from error
    now = identify(file.path, os.fstat(descriptor))
    if now != file:
        os.close(descriptor)
        raise InputChangedError(_changed(file, _difference(file, now)))
    return descriptor


def _difference(before: FileIdentity, now: FileIdentity) -> str:
    if before.size != now.size:
        return f"was {before.size:,} bytes when the merge was planned and is {now.size:,} now"
    if (before.device, before.inode) != (now.device, now.inode):
        return "was replaced by another file since the merge was planned"
    return "was written to since the merge was planned"


def _changed(file: FileIdentity, what: str) -> Problem:
    return Problem(f"{what}. Nothing was published; run the merge again when nobody writes to the input.", file.path)
