"""The seam between the steps that change the disk: what tests stop or break a merge at."""

from collections.abc import Callable
from pathlib import Path

Step = Callable[[str, Path], None]
"""Called before each step: what it does ("create", "allocate", "write", "journal", "fsync", "rename", "remove"), and to which path."""


def no_step(_: str, __: Path) -> None:
    """The seam outside tests."""
