"""Paths that a shell pattern matches, by the step that each names."""

import glob
import os
import re

from modelmerger import ConfigError

MOST = 1000
"""Models that one entry may stand for."""
_NUMBER = r"[0-9]{1,18}"


def is_pattern(path: str) -> bool:
    """Whether this is a pattern: what exists as it is written is none."""
    return glob.has_magic(path) and not os.path.lexists(os.path.expanduser(path))


def matching(pattern: str) -> list[str]:
    """What lies at the paths that a pattern matches, by steps, so that 1000 is behind 500. Nothing for a plain path."""
    if not is_pattern(pattern):
        return []
    found: list[str] = []
    for path in glob.iglob(os.path.expanduser(pattern), recursive=True):
        found.append(path.rstrip("/") or path)
        if len(found) > MOST:
            message = f"matches more than {MOST:,} paths. Give a pattern that matches fewer"
            raise ConfigError(message)
    return sorted(set(found), key=_step_and_name)


def _step_and_name(path: str) -> tuple[int, list[tuple[int, str]]]:
    """The last number of the last part that has one; then the path, with numbers in it by their size."""
    numbers = next((found for part in reversed(path.split("/")) if (found := re.findall(_NUMBER, part))), ["0"])
    pieces = re.split(r"(\d{1,18})", path)
    return int(numbers[-1]), [(int(piece) if piece.isascii() and piece.isdecimal() else -1, piece) for piece in pieces]
