"""What tells whether a file is still the one that it was."""

import os
from pathlib import Path

from attrs import frozen


@frozen(cache_hash=True)
class FileIdentity:
    """A file as it was at a moment. Equal identities at two moments: its content did not change between them."""

    path: str
    """Where it was opened, with no link left in the last part."""
    device: int
    """The number of the device that it is on."""
    inode: int
    """Its number on that device."""
    size: int
    """Bytes."""
    mtime_ns: int
    """When its content was last changed, in nanoseconds since 1970."""
    ctime_ns: int
    """When its content, its names or its permissions were last changed, in nanoseconds since 1970."""


def identify(path: Path | str, status: os.stat_result) -> FileIdentity:
    """The identity of the file at a path, of which the system says `status`."""
    return FileIdentity(str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
