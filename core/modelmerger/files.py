"""Input files: opened only if regular, identified by what `stat` says of them, read by position, few open at a time."""

import contextlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from modelmerger.errors import InputChangedError, InputError, Problem


@frozen(cache_hash=True)
class FileIdentity:
    """A file as it was when it was first opened. Two equal identities at two moments: the content did not change between them."""

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identify(path: Path | str, status: os.stat_result) -> FileIdentity:
    return FileIdentity(str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


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


class InputFiles:
    """The files that a merge reads. At most `limit` are open at a time; each is checked against its identity when opened again."""

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[FileIdentity, int] = OrderedDict()
        self._users: dict[FileIdentity, int] = {}

    def read(self, file: FileIdentity, offset: int, buffer: memoryview) -> None:
        """Fills the buffer from the offset. A file that ends early, or is another one by now, raises `InputChangedError`."""
        with self._descriptor(file) as descriptor:
            done = 0
            while done < len(buffer):
                try:
                    count = os.preadv(descriptor, [buffer[done:]], offset + done)
                except OSError as error:
                    raise InputError(Problem(f"cannot be read: {error.strerror}.", file.path)) from error
                if count == 0:
                    raise InputChangedError(_changed(file, "is shorter than when the merge was planned"))
                done += count

    def prefetch(self, file: FileIdentity, offset: int, length: int) -> None:
        """Tells the system what will be read soon, where it can be told. What is in memory, by the look of its ends, is left alone."""
        if length > 0 and hasattr(os, "posix_fadvise"):
            with self._descriptor(file) as descriptor, contextlib.suppress(OSError):
                if not (_in_memory(descriptor, offset) and _in_memory(descriptor, offset + length - 1)):
                    os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])

    @contextlib.contextmanager
    def _descriptor(self, file: FileIdentity) -> Iterator[int]:
        with self._lock:
            if (descriptor := self._open.get(file)) is None:
                self._make_room()
                descriptor = _reopen(file)
                self._open[file] = descriptor
            self._open.move_to_end(file)
            self._users[file] = self._users.get(file, 0) + 1
        try:
            yield descriptor
        finally:
            with self._lock:
                self._users[file] -= 1

    def _make_room(self) -> None:
        idle = [file for file in self._open if not self._users.get(file)]
        for file in idle[: max(0, len(self._open) + 1 - self._limit)]:
            os.close(self._open.pop(file))
            self._users.pop(file, None)


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
