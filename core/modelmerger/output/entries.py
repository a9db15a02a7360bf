"""Entries of open directories: made, looked at and removed by descriptor, so that no link is ever followed."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NO_SUCH_CALL = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY}
"""What file systems say to a call that they do not have."""


def open_directory(path: str | Path, inside: int | None = None) -> int:
    """A descriptor of a directory. Raises `OSError` for what is none, a link among it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)


@contextlib.contextmanager
def entered(name: str, inside: int) -> Iterator[tuple[int, str]]:
    """The folder that a name with folders leads to from an open one, open while the context lasts, and the name there.

    Raises `OSError`, also for a link in place of a folder.
    """
    *folders, last = name.split("/")
    current = inside
    try:
        for folder in folders:
            outer, current = current, open_directory(folder, current)
            if outer != inside:
                os.close(outer)
        yield current, last
    finally:
        if current != inside:
            os.close(current)


def open_entry(name: str, inside: int, mode: int) -> int:
    """A descriptor of a file that is there, in a folder if its name says so.

    mode: `os.O_RDONLY`, or how it is written to.
    """
    with entered(name, inside) as (folder, last):
        return os.open(last, mode | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def create_file(path: str | Path, inside: int | None = None, mode: int = os.O_WRONLY) -> int:
    """A descriptor, for writing, of a file that was not there. Raises `FileExistsError` where something was."""
    return os.open(path, mode | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=inside)


def is_directory(name: str, inside: int) -> bool:
    """Whether an entry is a directory, and no link to one."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_ISDIR(os.stat(name, dir_fd=inside, follow_symlinks=False).st_mode)
    return False


def owner_of_new(folder: Path) -> int:
    """The user id that what this process makes in a folder gets there: a network file system may give another one."""
    made = Path(tempfile.mkdtemp(prefix=".modelmerger-", dir=folder))
    try:
        return made.stat().st_uid
    finally:
        made.rmdir()


def same_entry(name: str | Path, held: os.stat_result, inside: int | None = None) -> bool:
    """Whether a name still leads to what is held, and not to what somebody else put in its place."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(name, dir_fd=inside, follow_symlinks=False), held)
    return False


def discard(name: str, inside: int) -> None:
    """Removes an entry, whatever it is, if it is there."""
    if is_directory(name, inside):
        shutil.rmtree(name, dir_fd=inside)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=inside)


def close_quietly(descriptor: int) -> None:
    """Closes what nothing depends on any more, whatever the system says to that."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Writes all of it. Raises `OSError`, also where the system says that it wrote nothing."""
    left = memoryview(content)
    while left:
        left = left[_moved(os.write(descriptor, left)) :]


def write_all_at(descriptor: int, content: memoryview, offset: int, at_once: int | None = None) -> None:
    """`write_all` from an offset in bytes. at_once: how many bytes a call is given at most."""
    while content:
        count = _moved(os.pwrite(descriptor, content[:at_once], offset))
        content, offset = content[count:], offset + count


def _moved(count: int) -> int:
    """The bytes that a call has written: with none, the next call would write none either."""
    if count <= 0:
        raise OSError(errno.EIO, "the file system took none of the bytes")
    return count


def sync_file(path: Path) -> None:
    """Fsync of a file or directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_directory(descriptor) if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_mode(path: Path, mode: int) -> None:
    """Gives a file its permissions, where the file system keeps any."""
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in {*_NO_SUCH_CALL, errno.EPERM}:
            raise


def sync_directory(descriptor: int) -> None:
    """Fsync of a directory, where the file system has such a thing. Others keep names by themselves, or not at all."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
