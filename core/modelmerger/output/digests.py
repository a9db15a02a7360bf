"""Digests of files by pieces, each in one block and one tensor: BLAKE3 of each piece, and of those digests."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

from blake3 import blake3

from modelmerger.inputs.direct.aligned import PAGE, aligned_memory, page_of, pages_for
from modelmerger.inputs.direct.open_file import OpenFile
from modelmerger.values.layout import BLOCK
from modelmerger.values.work.block_record import Piece

READ = 2 << 20
"""Bytes that are read at a time where digests are taken on all cores."""
WAITING = 6
"""Reads that the disk has to do while every core digests: fewer leave it idle now and then."""
NAME = "blake3-pieces"
"""What the manifest calls this way to digest a file."""


class PieceDigests:
    """The pieces of a block, digested as its bytes are made: what one tensor has one after another is one piece."""

    def __init__(self) -> None:
        self._lengths: list[int] = []
        self._tensors: list[str] = []
        self._hashers: list[blake3] = []

    def add(self, content: memoryview, tensor: str) -> None:
        """Digests the next bytes of the block, which are of a tensor, or of none ("")."""
        if self._tensors[-1:] != [tensor]:
            self._lengths.append(0)
            self._tensors.append(tensor)
            self._hashers.append(blake3())
        self._lengths[-1] += len(content)
        self._hashers[-1].update(content)

    def pieces(self) -> list[Piece]:
        """Those of what was added so far."""
        digests = [hasher.hexdigest() for hasher in self._hashers]
        return list(map(Piece, self._lengths, digests, self._tensors))


def block_count(size: int) -> int:
    """Blocks in a file; an empty file has none."""
    return -(-size // BLOCK)


def digest_of_bytes(content: bytes | memoryview) -> str:
    """In hexadecimal."""
    return blake3(content).hexdigest()


def digest_of_pieces(pieces: Sequence[Piece]) -> str:
    """The digest of a file from those of its pieces, in hexadecimal."""
    return blake3(b"".join(bytes.fromhex(piece.digest) for piece in pieces)).hexdigest()


def pieces_of_bytes(content: bytes) -> list[Piece]:
    """A small file's pieces: its blocks."""
    blocks = (content[start : start + BLOCK] for start in range(0, len(content), BLOCK))
    return [Piece(len(block), digest_of_bytes(block)) for block in blocks]


def pieces_of_file(path: Path, cuts: Iterable[tuple[int, str]] = ()) -> list[Piece]:
    """A file's pieces: its blocks, cut where a tensor ends.

    cuts: the offset of each such end and the tensor before it ("" for none), ascending.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size, begin, pieces = os.fstat(descriptor).st_size, 0, []
        for cut, tensor in (*cuts, (size, "")):
            while begin < cut:
                end = min(cut, (begin // BLOCK + 1) * BLOCK)
                pieces.append(Piece(end - begin, range_digest(descriptor, begin, end), tensor))
                begin = end
        return pieces
    finally:
        os.close(descriptor)


def differing(descriptor: int, begin: int, pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Which of the pieces that lie one after another from byte `begin` of an open file have another digest there."""
    for piece in pieces:
        if range_digest(descriptor, begin, begin + piece.length) != piece.digest:
            yield piece
        begin += piece.length


def differing_at_once(descriptor: int, pieces: Sequence[Piece]) -> Iterator[Piece]:
    """The same for all pieces of a file, on all cores, and past the page cache where they are not in it."""
    opened = OpenFile(os.dup(descriptor))
    begins = accumulate((piece.length for piece in pieces), initial=0)
    local = threading.local()

    def prepare() -> None:
        local.memory = aligned_memory(READ + PAGE)

    def digest(begin: int, piece: Piece) -> str:
        return _digest_past(opened, begin, piece.length, local.memory)

    try:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) + WAITING, initializer=prepare) as pool:
            digests = pool.map(digest, begins, pieces)
            yield from (piece for piece, digest in zip(pieces, digests, strict=True) if digest != piece.digest)
    finally:
        opened.retire()


def _digest_past(opened: OpenFile, begin: int, length: int, memory: memoryview) -> str:
    hasher = blake3()
    at, end = begin, begin + length
    while at < end:
        before, wanted = at - page_of(at), min(READ, end - at)
        if opened.is_cached(at, at + wanted, READ):
            count = os.preadv(opened.descriptor, [memory[before : before + wanted]], at)
        else:  # and asked for without waiting, the page cache would begin to read it too
            count = min(wanted, opened.read_past(memory[: pages_for(before + wanted)], page_of(at)) - before)
        if count <= 0:
            break
        hasher.update(memory[before : before + count])
        at += count
    return hasher.hexdigest()


def range_digest(descriptor: int, begin: int, end: int) -> str:
    """The digest in hexadecimal of bytes `begin` to `end` of an open file, or to where it ends before that."""
    hasher = blake3()
    while begin < end and (content := os.pread(descriptor, min(1 << 20, end - begin), begin)):
        hasher.update(content)
        begin += len(content)
    return hasher.hexdigest()
