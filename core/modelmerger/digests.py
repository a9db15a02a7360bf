"""Digests of files by blocks: BLAKE3 of each 16 MiB, and of the list of those for the file."""

import os
from collections.abc import Sequence
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
    return range_digest(descriptor, block * BLOCK, (block + 1) * BLOCK)


def range_digest(descriptor: int, begin: int, end: int) -> str:
    """The digest of bytes `begin` to `end` of an open file, or to where it ends before that."""
    hasher = blake3()
    while begin < end and (piece := os.pread(descriptor, min(1 << 20, end - begin), begin)):
        hasher.update(piece)
        begin += len(piece)
    return hasher.hexdigest()
