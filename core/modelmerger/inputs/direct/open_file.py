"""An input that is open: read through the page cache, or past it by a second descriptor of the same file."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterable
from functools import cached_property

from modelmerger.inputs.direct.aligned import PAGE
from modelmerger.inputs.direct.page_cache import cached_pages

_DIRECT: int = getattr(os, "O_DIRECT", 0)
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
_opening = threading.Lock()
STRETCH = 4 << 20
"""Bytes of which it is remembered together that they were in the page cache."""


class OpenFile:
    """A descriptor, and an entry for everybody who reads from it now. Once retired, it is closed when the last of them
    has left.

    Nobody needs a lock to come or go: to append to a list and to pop from it are atomic. A reader enters itself and
    then looks whether the file is retired; whoever retires it does that and then looks for readers. So one of the two
    sees the other, and no descriptor is closed that somebody reads from.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.readers: list[None] = []
        self.retired = False
        self._direct = -1
        self._refused = not _DIRECT
        self._to_close = [descriptor]
        self._found: set[int] = set()

    def retire(self) -> None:
        """Nobody comes any more."""
        self.retired = True
        self.close_unless_read()

    def close_unless_read(self) -> None:
        """Of several that come here at once, one closes it. What was only read loses nothing by a close that fails."""
        while not self.readers:
            try:
                descriptor = self._to_close.pop()
            except IndexError:
                return
            with contextlib.suppress(OSError):
                os.close(descriptor)

    @property
    def descriptors(self) -> int:
        """How many it has."""
        return 1 + (self._direct >= 0)

    @cached_property
    def tells_what_is_cached(self) -> bool:
        """Whether the file system says of bytes that it would have to wait for them."""
        try:
            return bool(_NOWAIT) and os.preadv(self.descriptor, [bytearray(1)], 0, _NOWAIT) >= 0
        except BlockingIOError:
            return True
        except OSError:
            return False

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Reads what is in the page cache, from the first byte to the first that is not; how many bytes that were."""
        try:
            return os.preadv(self.descriptor, [buffer], offset, _NOWAIT) if self.tells_what_is_cached else 0
        except BlockingIOError:
            return 0

    def is_cached(self, begin: int, end: int, step: int) -> bool:
        """Whether the bytes can be had without a device.

        Where the system does not say, the first one, the last, and one in each `step` between them are tried.
        """
        known = self._known(begin, end)
        return self._are_cached((end - 1, *range(begin, end, step))) if known is None else known

    def seems_cached(self, begin: int, end: int, step: int, size: int) -> bool:
        """The same, looked for once in each stretch of a file of this size: the system may have given it up since then.

        Whoever reads hears of that from `read_cached`, and says so to `forget_cached`.
        """
        for number in range(begin // STRETCH, (end - 1) // STRETCH + 1):
            if number not in self._found:
                if not self._known(number * STRETCH, min(size, (number + 1) * STRETCH)):
                    return self.is_cached(begin, end, step)
                self._found.add(number)
        return True

    def forget_cached(self) -> None:
        """Everything is looked for again."""
        self._found.clear()

    def ends_are_cached(self, begin: int, end: int) -> bool:
        """Whether the first byte and the last can be had without a device."""
        return self._are_cached((begin, end - 1))

    def _known(self, begin: int, end: int) -> bool | None:
        """Whether the bytes are in the page cache, as the system says; None where it does not."""
        found = cached_pages(self.descriptor, begin, end)
        return None if found is None else found >= (end - 1) // PAGE - begin // PAGE + 1

    def _are_cached(self, offsets: Iterable[int]) -> bool:
        byte = memoryview(bytearray(1))
        return all(self.read_cached(byte, offset) == 1 for offset in offsets)

    def read_past(self, buffer: memoryview, offset: int) -> int:
        """Reads without leaving anything in the page cache that was not there. Buffer and offset are page-aligned.

        Where the file system refuses that, the page cache is used, and freed again.
        """
        if self.can_be_read_past:
            try:
                return os.preadv(self._direct, [buffer], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._refused = True
        count = os.preadv(self.descriptor, [buffer], offset)
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self.descriptor, offset, count, os.POSIX_FADV_DONTNEED)
        return count

    @property
    def can_be_read_past(self) -> bool:
        """Whether the file system lets it be read past the page cache."""
        if self._direct < 0 and not self._refused:
            self._open_direct()
        return not self._refused

    def _open_direct(self) -> None:
        """Through the descriptor that is there, so that it is the same file, whatever its name leads to now."""
        with _opening:
            if self._direct >= 0 or self._refused:
                return
            try:
                descriptor = os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC | _DIRECT)
            except OSError:
                self._refused = True
                return
            self._to_close.append(descriptor)
            self._direct = descriptor
