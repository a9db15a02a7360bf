"""Whether two paths are one place on the disk, or one lies in the other, whatever they are called.

Device and inode are compared, not texts: a folder that is mounted a second time (bind mounts), or that a file system
finds under another spelling, is the same folder.
"""

import os
from pathlib import Path

from attrs import frozen

Identity = tuple[int, int]


def identity(path: str | Path) -> Identity | None:
    """Device and inode of what a path leads to; None where nothing is there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


@frozen(eq=False, repr=False)
class Place:
    """Where a path leads, which need not be there yet."""

    real: Path
    """The path without links."""
    here: Identity | None
    """What is there."""
    around: frozenset[Identity | None]
    """That, and all that it lies in."""

    @classmethod
    def of(cls, path: str | Path) -> "Place":
        """Looks a path up."""
        real = Path(os.path.realpath(path))
        return cls(real, identity(path), frozenset(map(identity, (real, *real.parents))))

    def is_or_lies_in(self, other: "Place") -> bool:
        """Whether it is the other one or lies in it at any depth."""
        return self.real == other.real or (other.here is not None and other.here in self.around)

    def touches(self, other: "Place") -> bool:
        """Whether one of the two is the other, or lies in it."""
        return self.is_or_lies_in(other) or other.is_or_lies_in(self)


def is_or_lies_in(path: str | Path, other: str | Path) -> bool:
    """Whether a path, which need not be there yet, is another one or lies in it at any depth."""
    return Place.of(path).is_or_lies_in(Place.of(other))
