"""A folder for what a merged model needs while it is there, and no longer: not even if its process is killed."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from modelmerger.output.entries import close_quietly, discard, open_directory, same_entry
from modelmerger.output.system_errors import output_error, output_errors
from modelmerger.values.model_reference import user_path

_PREFIX = f"modelmerger-scratch-{hashlib.blake2s(os.uname().nodename.encode(), digest_size=4).hexdigest()}-"
"""What the names of such folders begin with: another machine may have locks of its own on the same disk."""
_ATTEMPTS = 100
"""How often a folder may be taken for a dead one in the instant before it is locked."""


class Scratch:
    """A new folder in `parent` (made if need be), or where temporary files go.

    Removed at the end of the context, unless `goes_with` was called and something is in it: then with that object. It
    is locked until then, and one of this user that nobody has locked is removed when the next one is made. Raises
    `OutputError`.
    """

    def __init__(self, parent: str | None) -> None:
        self._parent = Path(os.path.abspath(user_path(parent))) if parent is not None else None

    def __enter__(self) -> Self:
        self._kept = False
        parent = self._parent or _temporary()
        with output_errors(parent):
            made = self._parent is not None and not parent.exists()
            if made:
                parent.mkdir(exist_ok=True)
            _remove_dead(parent)
            self.path, lock = _made_in(parent)
            """Where it is."""
        self._ending = weakref.finalize(self, _remove, self.path, lock, os.getpid(), with_parent=made)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self._ending()

    def goes_with(self, owner: Any) -> None:
        """What is in the folder lives as long as `owner`."""
        if any(path.is_file() for path in self.path.rglob("*")) and (ending := self._ending.detach()):
            _, remove, given, named = ending
            weakref.finalize(owner, remove, *given, **(named or {}))
            self._kept = True


_locks: set[int] = set()
"""Descriptors of folders that are in use."""


def _let_go() -> None:
    """A fork has them too, and would hold the locks when its parent is gone."""
    for descriptor in _locks:
        close_quietly(descriptor)
    _locks.clear()


os.register_at_fork(after_in_child=_let_go)


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise output_error(Path("TMPDIR"), error) from error


def _made_in(parent: Path) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock, where the file system has locks."""
    for _ in range(_ATTEMPTS):
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with contextlib.suppress(FileNotFoundError):
            lock = open_directory(path)
            if _lock(lock) is not False and same_entry(path, os.fstat(lock)):
                _locks.add(lock)
                return path, lock
            os.close(lock)
    raise FileNotFoundError(f"what is made in {parent} is removed at once")


def _lock(descriptor: int) -> bool | None:
    """Whether nobody else has it. None: the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_dead(parent: Path) -> None:
    """Removes what killed processes of this user left."""
    for path in _found_in(parent):
        with contextlib.suppress(OSError):
            descriptor = open_directory(path)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor):
                    for name in os.listdir(descriptor):
                        discard(name, descriptor)
                    path.rmdir()
            finally:
                os.close(descriptor)


def _found_in(parent: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        yield from (Path(entry.path) for entry in entries if entry.name.startswith(_PREFIX))


def _remove(path: Path, lock: int, owner: int, *, with_parent: bool) -> None:
    if os.getpid() != owner:  # a fork that ends has no say in it
        return
    shutil.rmtree(path, ignore_errors=True)
    _locks.discard(lock)
    close_quietly(lock)
    if with_parent:
        with contextlib.suppress(OSError):  # others may have put something there
            path.parent.rmdir()
