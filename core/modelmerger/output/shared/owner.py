"""Who is at work in a directory, in a file there: what keeps two machines apart where locks are local to each."""

import contextlib
import functools
import json
import os
import threading
from collections.abc import Callable
from typing import Any, Self

from attrs import asdict, field, frozen

from modelmerger.output.entries import create_file, discard, open_entry, write_all
from modelmerger.values.errors import OutputError, Problem

RENEWED = 10.0
"""Seconds between two signs of life of an owner."""
GONE = 60.0
"""Seconds without one, after which an owner on another machine is taken to be gone."""
MERGES, PREPARES = "merge", "preparing"
"""What an owner of all that is staged does: a whole merge, or what the first of several shares finds to be done."""
_LONGEST = 4096
_ATTEMPTS = 10


@frozen
class Owner:
    """A process that has a name in a directory for itself."""

    host: str
    """What its machine is called, for messages."""
    machine: str
    """What tells whether its number means a process of this machine, and of this container."""
    process: int
    """Its number."""
    started: str
    """When it began, as its system counts; empty where that does not say."""
    token: str
    """Of its own."""
    doing: str = MERGES
    """What it is there for: `MERGES`, `PREPARES`, or the share that it makes, as in `3/16`."""

    @classmethod
    def this(cls, token: str, doing: str) -> Self:
        """The process that asks."""
        return cls(os.uname().nodename, _machine(), os.getpid(), _started(os.getpid()), token, doing)

    @property
    def is_over(self) -> bool:
        """Whether it is known to have ended: it was one of this machine, and there is no such process any more."""
        return self.machine == _machine() and _started(self.process) != self.started

    def __str__(self) -> str:
        return "another merge" if self.doing in (MERGES, PREPARES) else f"part {self.doing}"


@functools.cache
def _machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return os.uname().nodename


def _started(process: int) -> str:
    """When a process of this machine began; "over" where there is none, or one that is dead and not yet buried."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            state, *rest = file.read().rpartition(")")[2].split()
        return "over" if state in "ZX" else rest[18]
    except FileNotFoundError:
        pass
    except OSError:
        return ""
    if os.path.exists("/proc/self/stat"):
        return "over"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return "over"
    except OSError:
        pass
    return ""


class OwnedError(OutputError):
    """Somebody else has the name."""

    def __init__(self, owner: Owner | None, seconds: float, path: str) -> None:
        who = f"process {owner.process} on {owner.host}" if owner is not None else "which has just begun"
        far = owner is not None and owner.machine != _machine()
        heard = f", heard of {max(0, seconds):.0f} s ago" if far else ""
        wait = f"Wait for it, or until nothing was heard of it for {GONE:.0f} s"
        advice = wait if far else "Wait for it, or give another output path"
        what = owner or "another merge"
        super().__init__(Problem(f"is being written by {what} at this moment ({who}{heard}). {advice}.", path))
        self.owner = owner
        """Who; None where the file does not say, since it has just been made."""


def time_of(directory: int, token: str) -> float:
    """Now, in seconds, by the clock of the file system, which no machine's own need agree with."""
    name = f"owner.{token}"
    descriptor = create_file(name, directory)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        discard(name, directory)


@frozen(eq=False, repr=False)
class Ownership:
    """A name in a directory that this process has for itself, from `take` to `release`.

    The file of that name is made so that only one process can make it. It is renewed while the process lives; a thread
    does so.
    """

    directory: int
    """A descriptor."""
    name: str
    """Of the file."""
    owner: Owner
    """Who takes it."""
    path: str
    """What it is about, for messages."""
    now: Callable[[int, str], float] = time_of
    """Seconds by the clock that files get their times of, given the directory and the owner's token."""
    _over: threading.Event = field(factory=threading.Event)
    _lost: threading.Event = field(factory=threading.Event)

    def take(self) -> None:
        """Raises `OwnedError` where another process has it, and `OSError`."""
        for _ in range(_ATTEMPTS):
            try:
                descriptor = create_file(self.name, self.directory)
            except FileExistsError:
                self._remove_if_gone()
                continue
            try:
                write_all(descriptor, json.dumps(asdict(self.owner)).encode())
            except BaseException:  # of a disk that is full: nobody is to wait for who could not begin
                discard(self.name, self.directory)
                raise
            finally:
                os.close(descriptor)
            threading.Thread(target=self._renew_always, name="owner", daemon=True).start()
            return
        raise OwnedError(None, 0, self.path)

    def renew(self) -> None:
        """Gives a sign of life."""
        if (found := read_owner(self.directory, self.name)) is None or found[0] != self.owner:
            self._lost.set()
            return
        with contextlib.suppress(OSError):
            os.utime(self.name, dir_fd=self.directory, follow_symlinks=False)

    def check(self) -> None:
        """Raises `OutputError` where another machine took over, since it heard nothing of this one for long."""
        if self._lost.is_set():
            raise OutputError(Problem("was taken over by another machine. What was done here is not lost.", self.path))

    def release(self) -> None:
        """Gives the name back, if it is still this process's."""
        self._over.set()
        with contextlib.suppress(OSError):
            if (found := read_owner(self.directory, self.name)) is not None and found[0] == self.owner:
                discard(self.name, self.directory)

    def _renew_always(self) -> None:
        while not self._over.wait(RENEWED):
            self.renew()

    def _remove_if_gone(self) -> None:
        """Raises `OwnedError` unless the owner is gone, whose file is then removed: by one process, if more try."""
        if (seen := read_owner(self.directory, self.name)) is None:
            return
        owner, renewed = seen
        if not _is_gone(owner, renewed, lambda: self.now(self.directory, self.owner.token)):
            raise OwnedError(owner, self.now(self.directory, self.owner.token) - renewed, self.path)
        aside = f"{self.name}.{self.owner.token}"
        try:
            os.rename(self.name, aside, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        except FileNotFoundError:
            return
        moved = read_owner(self.directory, aside)
        if moved is not None and moved[0] != owner:  # somebody was quicker, and this is theirs
            with contextlib.suppress(OSError):
                os.link(aside, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        discard(aside, self.directory)


def _is_gone(owner: Owner | None, renewed: float, now: Callable[[], float]) -> bool:
    return (owner is not None and owner.is_over) or now() - renewed > GONE


def read_owner(directory: int, name: str) -> tuple[Owner | None, float] | None:
    """Who has a name, and when it was last renewed. None: nobody; an owner of None: the file does not say who."""
    try:
        descriptor = open_entry(name, directory, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        content, renewed = os.read(descriptor, _LONGEST), os.fstat(descriptor).st_mtime
    except OSError:  # a directory, or a disk that fails: no process wrote it
        return None, 0.0
    finally:
        os.close(descriptor)
    try:
        told: dict[str, Any] = json.loads(content)
        return Owner(**told), renewed
    except (ValueError, TypeError):
        return None, renewed


def check_free(directory: int, name: str, token: str, path: str) -> None:
    """Raises `OwnedError` where a process that is not gone has a name. token: of who asks."""
    if (seen := read_owner(directory, name)) is None:
        return
    owner, renewed = seen
    if not _is_gone(owner, renewed, lambda: time_of(directory, token)):
        raise OwnedError(owner, time_of(directory, token) - renewed, path)
