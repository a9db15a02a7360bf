"""What is known of a block of a file that was written: its pieces with their digests, and what was counted in it."""

from collections.abc import Mapping, Sequence

from attrs import field, frozen

_DIGEST = 32
"""Bytes of a BLAKE3 digest."""


@frozen
class Piece:
    """Some bytes of a file, which have a digest of their own."""

    length: int
    """How many."""
    digest: str
    """In hexadecimal."""
    tensor: str = ""
    """The tensor that they are of; empty for what is of none."""

    def __str__(self) -> str:
        return f"{self.length} {self.digest}" + (f" {self.tensor}" if self.tensor else "")

    @classmethod
    def parsed(cls, text: str) -> "Piece":
        """What `str` was made of. Raises `ValueError` for what it never makes."""
        length, digest, *tensor = text.split(" ", 2)
        if not length.isdecimal() or len(bytes.fromhex(digest)) != _DIGEST:
            raise ValueError(f"{text!r} names no piece of a file")
        return cls(int(length), digest, *tensor)


@frozen
class BlockRecord:
    """What is known of a finished block."""

    pieces: Sequence[Piece]
    """Its pieces, one after another, with their digests."""
    counts: Mapping[str, int] = field(factory=dict)
    """What the strategy counted as it was made."""
    observed: Mapping[str, Mapping[str, float]] = field(factory=dict)
    """What plugins observed as it was made: tensor → statistic → sum."""
