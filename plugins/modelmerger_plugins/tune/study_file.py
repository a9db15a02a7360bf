"""The file of a study: one of ours, of one process at a time, at the end of which rows come to lie whole."""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from modelmerger import OutputError, Problem

_ATTEMPTS = 100
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


class StudyFile:
    """A regular file that is opened, made if need be, and locked until it is closed, or until its process is gone.

    Raises `OutputError` where something else has its name, or another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            _make_folder(path.parent)
            self._descriptor = self._locked()
        except OSError as error:
            raise self._cannot("opened", error) from error
        os.register_at_fork(after_in_child=self.close)  # a fork would hold the lock for as long as it lives

    def read(self) -> bytes:
        """All of it."""
        try:
            with os.fdopen(os.dup(self._descriptor), "rb") as file:
                file.seek(0)
                return file.read()
        except OSError as error:
            raise self._cannot("read", error) from error

    def cut(self, length: int) -> None:
        """Leaves so many bytes."""
        try:
            os.ftruncate(self._descriptor, length)
        except OSError as error:
            raise self._cannot("written", error) from error

    def append(self, content: bytes) -> None:
        """Adds to its end, all of it or nothing; it is on the disk when this returns."""
        try:
            before = os.fstat(self._descriptor).st_size
            try:
                while content:
                    content = content[os.write(self._descriptor, content) :]
                os.fsync(self._descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, before)
                raise
        except OSError as error:
            raise self._cannot("written", error) from error

    def close(self) -> None:
        """Closes it; it may be closed already."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _locked(self) -> int:
        for _ in range(_ATTEMPTS):
            descriptor = self._opened()
            try:
                self._lock(descriptor)
                if _is_at(self.path, descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # whoever had it has just removed it
        raise refused(self.path, "is another file whenever it is looked at. Tune into another output")

    def _opened(self) -> int:
        how = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            descriptor = os.open(self.path, how, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise self._foreign("is a link, a directory or a device") from error
            raise
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(descriptor)
            linked = stat.S_ISREG(status.st_mode)
            raise self._foreign("has a second name, which would be written too" if linked else "is not a regular file")
        return descriptor

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = "is being written by another search at this moment. Wait for it, or tune into another output"
            raise refused(self.path, message) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                message = f"is on a file system without locks, which keep two searches apart ({error.strerror})"
                raise refused(self.path, f"{message}. Tune into an output on another disk") from error
            raise

    def _foreign(self, what: str) -> OutputError:
        return refused(self.path, f"{what}, and no study. Move it away, or tune into another output")

    def _cannot(self, what: str, error: OSError) -> OutputError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Free some space" if full else "Check the disk"
        reason = error.strerror or type(error).__name__
        return refused(self.path, f"cannot be {what}: {reason}. {remedy}, then go on with --resume")


def refused(path: Path, message: str) -> OutputError:
    """The error about a study."""
    return OutputError(Problem(message, str(path)))


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        raise refused(folder, "is a link, and not the folder of a search. Move it away, or tune into another output")


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
