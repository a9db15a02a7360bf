"""How much is read ahead of those who need it: for one of them, and where there are many."""

from modelmerger.inputs.direct.aligned import PAGE, page_of

PIECE = 4 << 20
"""Bytes that are fetched in one go at most."""
PIECES = 4
"""How many of them are held for one thread, those among them that it reads at the moment."""
TOGETHER = 32 << 20
"""Bytes that are held for all threads together: the more there are, the smaller are the pieces."""
LEAST = 64 << 10
"""Bytes of a piece, however many threads there are."""
BETWEEN = 1 << 20
"""Bytes of memory at most through which a thread gets what nobody said would be read, and of which one byte is looked
for in the page cache."""


def piece_for(threads: int) -> int:
    """How many bytes are fetched in one go, where so many threads read."""
    return min(PIECE, max(LEAST, page_of(TOGETHER // threads // PIECES)))


def held_for(threads: int) -> int:
    """Bytes that each of so many threads holds at most: of what is read ahead, and of what is not."""
    piece = piece_for(threads)
    return PIECES * (piece + PAGE) + min(BETWEEN, piece) + PAGE
