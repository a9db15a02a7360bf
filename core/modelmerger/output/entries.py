"""Entries of open directories: made, looked at and removed by descriptor, so that no link is ever followed."""

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path


def open_directory(path: str | Path, inside: int | None = None) -> int:
    """A descriptor of a directory. Raises `OSError` for what is none, a link among it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)


def open_entry(name: str, inside: int, mode: int) -> int:
    """A descriptor of a file that is there; mode: `os.O_RDONLY`, or how it is written to."""
    return os.open(name, mode | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)


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


def sync_file(path: Path) -> None:
    """Fsync of a file or directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
