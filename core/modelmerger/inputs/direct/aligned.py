"""Memory and offsets that a device can read into directly: whole pages of each."""

import mmap

PAGE = 4096
"""Bytes. Whatever a device asks for in the way of alignment, multiples of this have it."""


def page_of(offset: int) -> int:
    """The offset at which the page of a byte begins."""
    return offset // PAGE * PAGE


def pages_for(length: int) -> int:
    """The length of the pages that so many bytes take."""
    return -(-length // PAGE) * PAGE


def aligned_memory(length: int) -> memoryview:
    """New memory that begins with a page, of `pages_for(length)` bytes. It goes when the last view of it does."""
    return memoryview(mmap.mmap(-1, max(PAGE, pages_for(length)), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
