"""The lock of a staging directory, which goes with the process that has it: one merge alone, or many shares of one."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from modelmerger.output.entries import close_quietly, open_directory
from modelmerger.output.steps import Step
from modelmerger.values.errors import OutputError, Problem

ATTEMPTS = 1_000
"""How often the directory may go or be another one at the moment in which it is locked."""
NOT_OURS = "exists and is not a staging directory of a merge. Move it away, or give another output path."
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_UNLOCKED = "is on a file system without locks, which keep two merges apart"
_ELSEWHERE = "Give an output path on another disk, or have this one mounted with locks (flock)"

_held: set[int] = set()
"""Descriptors of locked directories."""


def _let_go() -> None:
    """A fork has them too, and would hold the lock for as long as it lives, even when its parent is gone."""
    for descriptor in _held:
        close_quietly(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


class LockedError(OutputError):
    """Another process of this machine has the lock."""


class NotThereError(OutputError):
    """There is no directory to lock, and none was to be made."""


def locked(root: Path, target: Path, step: Step, *, alone: bool = True, make: bool = True) -> int:
    """A descriptor of a directory that is made if need be and then locked, until `unlock`.

    alone: whether nobody else may have a lock of it, not even one that others may have too. make: whether it is made
    where there is none. Raises `LockedError` where the lock cannot be had, `NotThereError` where there is nothing to
    lock, `OutputError` where something else has the name, and `OSError`.
    """
    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    for _ in range(ATTEMPTS):
        if make:
            step("create", root)
            with contextlib.suppress(FileExistsError):
                root.mkdir(0o700)
        try:
            descriptor = open_directory(root)
        except FileNotFoundError:
            if not make:
                raise NotThereError(Problem("is not there any more. Run it again.", str(root))) from None
            continue  # whoever held it has just removed it
        except NotADirectoryError:
            raise OutputError(Problem(NOT_OURS, str(root))) from None
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            if _is_at(root, descriptor):
                _held.add(descriptor)
                return descriptor
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                raise OutputError(Problem(f"{_UNLOCKED} ({error.strerror}). {_ELSEWHERE}.", str(root))) from None
            if not isinstance(error, BlockingIOError):
                raise
            message = "is being written by another merge at this moment. Wait for it, or give another output path."
            raise LockedError(Problem(message, str(target))) from None
        os.close(descriptor)
    message = "is another directory whenever it is looked at. Give an output path on another disk."
    raise OutputError(Problem(message, str(root)))


def unlock(descriptor: int) -> None:
    """Gives the lock back, and closes the directory."""
    _held.discard(descriptor)
    close_quietly(descriptor)


def _is_at(root: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(root, follow_symlinks=False))
    except FileNotFoundError:
        return False
