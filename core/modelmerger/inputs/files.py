"""The files that a merge reads: by position, few open at a time, each still the one that was planned with."""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from modelmerger.inputs.direct.aligned import PAGE, aligned_memory, page_of, pages_for
from modelmerger.inputs.direct.amounts import BETWEEN, PIECES, piece_for
from modelmerger.inputs.direct.open_file import OpenFile
from modelmerger.inputs.unchanged import changed, reopened
from modelmerger.values.errors import InputChangedError, InputError, Problem
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.options.core import Io

if TYPE_CHECKING:
    from modelmerger.inputs.direct.read_ahead import ReadAhead

THREADS = 4
"""How many pieces are fetched at a time, at least."""
SMALL = 64 << 10
"""Bytes from which on it pays to read past the page cache what nobody said would be read."""


class InputFiles:
    """Files that are read from several threads. Each is compared with its identity whenever it is opened again.

    At most `limit` descriptors are kept open, those of the newest files, and beside them those that somebody reads
    from. What is open is found and read without a lock, for every slice of every input is read through here.

    io: "buffered" reads through the page cache, "direct" past it; "auto" takes from the page cache what is there
    already, and reads everything else past it. threads: how many say what they will read, at most; they share the
    memory for it.
    """

    def __init__(self, limit: int = 32, io: Io = "buffered", threads: int = 1) -> None:
        self._limit = limit
        self._io = io
        self._piece = piece_for(threads)
        self._between = min(BETWEEN, self._piece)
        self._fetching = max(THREADS, threads // 2)
        self._lock = threading.RLock()  # held to open and to retire files
        self._open: dict[FileIdentity, OpenFile] = {}
        self._local = threading.local()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None  # and the process that its threads are in
        self._closed = False
        weakref.finalize(self, _retire, self._open, 0).atexit = False

    def read(self, file: FileIdentity, offset: int, buffer: memoryview) -> None:
        """Fills the buffer from the offset. Raises `InputChangedError` where the file ends early or is another one."""
        ahead: ReadAhead | None = getattr(self._local, "ahead", None)
        if ahead is not None and ahead.process == os.getpid():
            while len(buffer) and (count := ahead.take(file, offset, buffer)):
                buffer, offset = buffer[count:], offset + count
            if not len(buffer):
                return
        self.read_parts(file, [(offset, buffer)])

    def read_parts(self, file: FileIdentity, parts: Sequence[tuple[int, memoryview]]) -> None:
        """Fills each buffer from its offset, without looking at what was said before. Raises `InputChangedError`."""

        def fill(opened: OpenFile) -> None:
            for at, rest in parts:
                while (count := self._read_some(opened, file, rest, at)) < len(rest):
                    if count == 0:
                        raise InputChangedError(changed(file, "is shorter than when the merge was planned"))
                    rest, at = rest[count:], at + count  # noqa: PLW2901 (what is left of it)

        self._use(file, fill)

    def prefetch(self, file: FileIdentity, offset: int, length: int) -> None:
        """Says what this thread will read soon, behind what it said before; what is not in memory is fetched."""
        if length > 0:
            self._closed = False
            self._use(file, lambda opened: self._expect(opened, file, offset, length))

    def close(self) -> None:
        """Closes every file that nobody reads from, and the others when their readers have left."""
        self._closed = True
        with self._lock:
            _retire(self._open, 0)

    def _use(self, file: FileIdentity, what: Callable[[OpenFile], None]) -> None:
        """Calls `what` with the file, which is not closed meanwhile."""
        opened = self._open.get(file) or self._reopened(file)
        opened.readers.append(None)
        try:
            if opened.retired:  # since it was found; while the lock is held, nothing is
                with self._lock:
                    self._use(file, what)
                return
            what(opened)
        except OSError as error:
            raise InputError(Problem(f"cannot be read: {error.strerror}.", file.path)) from error
        finally:
            opened.readers.pop()
            if opened.retired:
                opened.close_unless_read()

    def _reopened(self, file: FileIdentity) -> OpenFile:
        with self._lock:
            if (opened := self._open.get(file)) is None:
                _retire(self._open, self._limit - 1)
                opened = self._open[file] = OpenFile(reopened(file))
            return opened

    def _read_some(self, opened: OpenFile, file: FileIdentity, buffer: memoryview, offset: int) -> int:
        """Reads the beginning of what is wanted, as much as one call gives."""
        if self._io == "buffered" or (self._io == "auto" and (len(buffer) < SMALL or not opened.tells_what_is_cached)):
            return os.preadv(opened.descriptor, (buffer,), offset)
        if self._io == "auto" and opened.seems_cached(offset, offset + len(buffer), BETWEEN, file.size):
            if count := opened.read_cached(buffer, offset):
                return count
            opened.forget_cached()
        before = offset - page_of(offset)
        memory: memoryview | None = getattr(self._local, "between", None)
        if memory is None:
            memory = self._local.between = aligned_memory(self._between + PAGE)
        wanted = min(self._between, len(buffer))
        count = max(0, opened.read_past(memory[: pages_for(before + wanted)], offset - before) - before)
        buffer[: min(count, wanted)] = memory[before : before + min(count, wanted)]
        return min(count, wanted)

    def _expect(self, opened: OpenFile, file: FileIdentity, offset: int, length: int) -> None:
        with contextlib.suppress(OSError):  # whoever reads will hear of it
            if self._io == "direct" or (self._io == "auto" and opened.tells_what_is_cached):
                from modelmerger.inputs.direct.read_ahead import pieces

                for piece in pieces(file, offset, length, self._piece):
                    if self._io == "direct" or not opened.seems_cached(piece.begin, piece.end, BETWEEN, file.size):
                        self._ahead().expect(piece)
            elif hasattr(os, "posix_fadvise") and not opened.ends_are_cached(offset, offset + length):
                os.posix_fadvise(opened.descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def _ahead(self) -> "ReadAhead":
        """That of this thread."""
        from modelmerger.inputs.direct.read_ahead import ReadAhead

        ahead: ReadAhead | None = getattr(self._local, "ahead", None)
        process = os.getpid()
        if ahead is None or ahead.process != process:
            with self._lock:
                if self._pool is None or self._pool[0] != process:
                    self._pool = process, ThreadPoolExecutor(self._fetching, "read")
            most = PIECES * (self._piece + PAGE)
            ahead = self._local.ahead = ReadAhead(self._fetch, self._pool[1], most)
        return ahead

    def _fetch(self, file: FileIdentity, offset: int, memory: memoryview) -> None:
        needed = min(len(memory), file.size - offset)

        def fetch(opened: OpenFile) -> None:
            done = 0
            while done < needed:
                count = opened.read_past(memory[done:], offset + done)
                if count < needed - done and count < PAGE:
                    raise InputChangedError(changed(file, "is shorter than when the merge was planned"))
                done += count if count >= needed - done else page_of(count)

        try:
            self._use(file, fetch)
        finally:
            if self._closed:  # while this waited for its turn, so that it may have opened the file again
                self.close()


def _retire(opened: dict[FileIdentity, OpenFile], kept: int) -> None:
    """Leaves the newest, which have `kept` descriptors."""
    while sum(file.descriptors for file in opened.values()) > kept:
        opened.pop(next(iter(opened))).retire()
