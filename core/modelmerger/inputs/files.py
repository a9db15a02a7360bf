"""The files that a merge reads: by position, few open at a time, each still the one that was planned with."""

import contextlib
import os
import threading
import weakref

from modelmerger.inputs.unchanged import changed, reopened
from modelmerger.values.errors import InputChangedError, InputError, Problem
from modelmerger.values.file_identity import FileIdentity


class _OpenFile:
    """A descriptor, and an entry for everybody who reads from it now. Once retired, it is closed when the last of them
    has left.

    Nobody needs a lock to come or go: to append to a list and to pop from it are atomic. A reader enters itself and
    then looks whether the file is retired; whoever retires it does that and then looks for readers. So one of the two
    sees the other, and no descriptor is closed that somebody reads from.
    """

    __slots__ = ("_to_close", "descriptor", "readers", "retired")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.readers: list[None] = []
        self.retired = False
        self._to_close = [descriptor]

    def retire(self) -> None:
        self.retired = True
        self.close_unless_read()

    def close_unless_read(self) -> None:
        """Of several that come here at once, one closes it. What was only read loses nothing by a close that fails."""
        if not self.readers:
            with contextlib.suppress(IndexError, OSError):
                os.close(self._to_close.pop())


class InputFiles:
    """Files that are read from several threads. Each is compared with its identity whenever it is opened again.

    At most `limit` are kept open, the newest ones, and beside them those that somebody reads from. What is open is
    found and read without a lock, for every slice of every input is read through here.
    """

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._lock = threading.RLock()  # held to open and to retire files
        self._open: dict[FileIdentity, _OpenFile] = {}
        weakref.finalize(self, _retire, self._open, 0).atexit = False

    def read(self, file: FileIdentity, offset: int, buffer: memoryview) -> None:
        """Fills the buffer from the offset. Raises `InputChangedError` where the file ends early or is another one."""
        opened = self._open.get(file) or self._reopened(file)
        opened.readers.append(None)
        try:
            if opened.retired:  # since it was found; while the lock is held, nothing is
                with self._lock:
                    self.read(file, offset, buffer)
                return
            while (count := os.preadv(opened.descriptor, (buffer,), offset)) < len(buffer):
                if count == 0:
                    raise InputChangedError(changed(file, "is shorter than when the merge was planned"))
                buffer, offset = buffer[count:], offset + count
        except OSError as error:
            raise InputError(Problem(f"cannot be read: {error.strerror}.", file.path)) from error
        finally:
            opened.readers.pop()
            if opened.retired:
                opened.close_unless_read()

    def prefetch(self, file: FileIdentity, offset: int, length: int) -> None:
        """Tells the system what will be read soon, where it can be told and the ends are not in memory already."""
        if length <= 0 or not hasattr(os, "posix_fadvise"):
            return
        opened = self._open.get(file) or self._reopened(file)
        opened.readers.append(None)
        try:
            ends = offset, offset + length - 1
            if not (opened.retired or all(_in_memory(opened.descriptor, end) for end in ends)):
                os.posix_fadvise(opened.descriptor, offset, length, os.POSIX_FADV_WILLNEED)
        except OSError:
            pass
        finally:
            opened.readers.pop()
            if opened.retired:
                opened.close_unless_read()

    def close(self) -> None:
        """Closes every file that nobody reads from, and the others when their readers have left."""
        with self._lock:
            _retire(self._open, 0)

    def _reopened(self, file: FileIdentity) -> _OpenFile:
        with self._lock:
            if (opened := self._open.get(file)) is None:
                _retire(self._open, self._limit - 1)
                opened = self._open[file] = _OpenFile(reopened(file))
            return opened


def _retire(opened: dict[FileIdentity, _OpenFile], kept: int) -> None:
    """Leaves the `kept` newest."""
    while len(opened) > kept:
        opened.pop(next(iter(opened))).retire()


def _in_memory(descriptor: int, offset: int) -> bool:
    """Whether a byte can be read without waiting for a device. To ask costs a tenth of telling in vain."""
    try:
        return hasattr(os, "RWF_NOWAIT") and os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        return False
