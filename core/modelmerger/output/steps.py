"""The seam between the steps that change the disk: what tests stop or break a merge at."""

from collections.abc import Callable
from pathlib import Path

Step = Callable[[str, Path], None]
"""Called before each step with what it does, and to which path.

It does one of "create", "allocate", "write", "journal", "fsync", "rename" and "remove".
"""


def no_step(_: str, __: Path) -> None:
    """The seam outside tests."""
