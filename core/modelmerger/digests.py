"""Digests of files by blocks: BLAKE3 of each 16 MiB, and of the list of those for the file."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from modelmerger.layout import BLOCK

NAME = "blake3-16MiB"


def block_count(size: int) -> int:
    """Blocks in a file; an empty file has none."""
    return -(-size // BLOCK)


def digest_of_blocks(blocks: Sequence[str]) -> str:
    """The digest of a file from the hexadecimal digests of its blocks."""
    return blake3(b"".join(bytes.fromhex(block) for block in blocks)).hexdigest()


def blocks_of_bytes(content: bytes) -> list[str]:
    return [blake3(content[start : start + BLOCK]).hexdigest() for start in range(0, len(content), BLOCK)]


def blocks_of_file(path: Path) -> tuple[int, list[str]]:
    """Size and block digests of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        return size, [block_digest(descriptor, block) for block in range(block_count(size))]
    finally:
        os.close(descriptor)


def block_digest(descriptor: int, block: int) -> str:
    """The digest of one block of an open file, read by position."""
    hasher = blake3()
    for piece in _pieces(descriptor, block * BLOCK, BLOCK):
        hasher.update(piece)
    return hasher.hexdigest()


def _pieces(descriptor: int, offset: int, length: int) -> Iterator[bytes]:
    end = offset + length
    while offset < end and (piece := os.pread(descriptor, min(1 << 20, end - offset), offset)):
        yield piece
        offset += len(piece)
