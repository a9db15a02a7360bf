"""Whether two paths are one place on the disk, or one lies in the other, whatever they are called.

Device and inode are compared, not texts: a folder that is mounted a second time (bind mounts), or that a file system
finds under another spelling, is the same folder.
"""

import os
from pathlib import Path

Identity = tuple[int, int]


def identity(path: str | Path) -> Identity | None:
    """Device and inode of what a path leads to; None where nothing is there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def is_or_lies_in(path: str | Path, other: str | Path) -> bool:
    """Whether a path, which need not be there yet, is another one or lies in it at any depth."""
    sought = identity(other)
    real = Path(os.path.realpath(path))
    return real == Path(os.path.realpath(other)) or (
        sought is not None and any(identity(place) == sought for place in (real, *real.parents))
    )


def touch(path: str | Path, other: str | Path) -> bool:
    """Whether one of two paths is the other, or lies in it."""
    return is_or_lies_in(path, other) or is_or_lies_in(other, path)
