"""What one thread will read soon, in its order: threads of a pool fetch it from the device, piece by piece."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future

from attrs import field, frozen

from modelmerger.inputs.direct.aligned import PAGE, aligned_memory, page_of, pages_for
from modelmerger.inputs.direct.amounts import PIECE, PIECES
from modelmerger.values.file_identity import FileIdentity

Fetch = Callable[[FileIdentity, int, memoryview], None]
"""Fills memory, whole pages, from an offset of a file that begins a page; of the last pages what the file has."""


@frozen(eq=False)
class Piece:
    """Bytes of a file that somebody will read, from the first to the last."""

    file: FileIdentity
    """Which one."""
    begin: int
    """The offset of the first byte."""
    end: int
    """The offset behind the last byte."""

    @property
    def size(self) -> int:
        """Bytes of the pages around it."""
        return pages_for(self.end - page_of(self.begin))


def pieces(file: FileIdentity, offset: int, length: int, size: int = PIECE) -> Iterator[Piece]:
    """A stretch of a file in pieces. size: of each in bytes, but for the last one."""
    for begin in range(offset, offset + length, size):
        yield Piece(file, begin, min(begin + size, offset + length))


@frozen(eq=False)
class _Begun:
    memory: memoryview
    fetched: "Future[None]"


@frozen(eq=False)
class ReadAhead:
    """For one thread. A piece is fetched once, and its memory used again when its last byte was taken."""

    fetch: Fetch
    """Reads from the device."""
    pool: Executor
    """Where it is called."""
    most: int = PIECES * (PIECE + PAGE)
    """Bytes of memory. What is read out of order may take one piece more."""
    process: int = field(factory=os.getpid)
    """The one whose thread this is for: a fork of it has the object, and not the threads of the pool."""
    _waiting: deque[Piece] = field(factory=deque, init=False)
    _begun: dict[Piece, _Begun] = field(factory=dict, init=False)
    _first: dict[tuple[FileIdentity, int], Piece] = field(factory=dict, init=False)
    _within: dict[FileIdentity, Piece] = field(factory=dict, init=False)
    _last: dict[FileIdentity, Piece] = field(factory=dict, init=False)
    _left: list[_Begun] = field(factory=list, init=False)  # whose memory is still being written to
    _free: list[memoryview] = field(factory=list, init=False)

    def expect(self, piece: Piece) -> None:
        """The thread will read this piece after those that it is expected to read already.

        What it has in common with the last one of its file is fetched with that.
        """
        last = self._last.get(piece.file)
        if last is not None and last.begin <= piece.begin < last.end and self._is_expected(last):
            if piece.end <= last.end:
                return
            piece = Piece(piece.file, last.end, piece.end)
        if (piece.file, piece.begin) not in self._first:
            self._first[piece.file, piece.begin] = self._last[piece.file] = piece
            self._waiting.append(piece)
            self._begin_more()

    def take(self, file: FileIdentity, offset: int, buffer: memoryview) -> int:
        """Fills the beginning of the buffer from an offset, as far as one piece goes; how many bytes that were.

        0 where the bytes are not expected. Raises what fetching them raised.
        """
        if not self._first:
            return 0
        piece = self._within.get(file)
        if piece is None or not piece.begin <= offset < piece.end:
            if (found := self._first.get((file, offset)) or self._around(file, offset)) is None:
                return 0
            if piece is not None:
                self._forget(piece)
            piece = self._within[file] = found
        begun = self._begun.get(piece) or self._begin_now(piece)
        begun.fetched.result()
        count = min(len(buffer), piece.end - offset)
        place = offset - page_of(piece.begin)
        _copy(begun.memory[place : place + count], buffer)
        if offset + count == piece.end:
            self._forget(piece)
            self._begin_more()
        return count

    def _is_expected(self, piece: Piece) -> bool:
        return self._first.get((piece.file, piece.begin)) is piece

    def _around(self, file: FileIdentity, offset: int) -> Piece | None:
        """The piece that an offset lies in, of which the beginning was not asked for."""
        return next((p for p in self._first.values() if p.file == file and p.begin < offset < p.end), None)

    def _begin_more(self) -> None:
        while self._waiting and self._held() + self._waiting[0].size <= self.most:
            self._begin(self._waiting.popleft())

    def _begin_now(self, piece: Piece) -> _Begun:
        """Of a piece whose turn has not come; what was to be read before it and was not makes room."""
        self._waiting.remove(piece)
        while self._begun and self._held() + piece.size > self.most:
            self._forget(next(iter(self._begun)))
        return self._begin(piece)

    def _begin(self, piece: Piece) -> _Begun:
        memory = self._memory(piece.size)
        fetched = self.pool.submit(self.fetch, piece.file, page_of(piece.begin), memory[: piece.size])
        self._begun[piece] = begun = _Begun(memory, fetched)
        return begun

    def _memory(self, size: int) -> memoryview:
        """Memory that was used before, if it is not much more than needed: what is held is what is counted."""
        for number, memory in enumerate(self._free):
            if size <= len(memory) <= 2 * size:
                return self._free.pop(number)
        while self._free and self._held() + sum(map(len, self._free)) + size > self.most:
            self._free.pop(0)
        return aligned_memory(size)

    def _forget(self, piece: Piece) -> None:
        self._first.pop((piece.file, piece.begin), None)
        if self._within.get(piece.file) is piece:
            del self._within[piece.file]
        begun = self._begun.pop(piece, None)
        if begun is not None:
            self._left.append(begun)
            begun.fetched.cancel()  # which it cannot be where the device writes to its memory at the moment

    def _held(self) -> int:
        """Bytes that cannot be used for another piece now."""
        for begun in [begun for begun in self._left if begun.fetched.done()]:
            self._left.remove(begun)
            self._free.append(begun.memory)
        return sum(len(begun.memory) for begun in (*self._begun.values(), *self._left))


def _copy(source: memoryview, target: memoryview) -> None:
    """Lets other threads run meanwhile, as the assignment of a memoryview does not."""
    import numpy as np

    np.copyto(np.frombuffer(target, np.uint8, len(source)), np.frombuffer(source, np.uint8))
