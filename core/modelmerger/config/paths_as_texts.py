"""Paths given as objects (`pathlib.Path`): found in a config, and replaced there by their texts."""

import os
from collections.abc import Mapping
from typing import Any

_DEEPEST = 100
"""How deep containers lie in each other at most; what lies deeper is refused later."""


def with_texts(given: Any, depth: int = 0) -> Any:
    """The value with a text in place of each path in its mappings, lists and tuples.

    What holds no path is handed back as it is, the very same object.
    """
    if isinstance(given, os.PathLike):
        return os.fsdecode(given)
    if depth > _DEEPEST:
        return given
    if isinstance(given, Mapping):
        texts = {key: with_texts(value, depth + 1) for key, value in given.items()}
        return texts if any(texts[key] is not value for key, value in given.items()) else given
    if isinstance(given, list | tuple):
        entries = [with_texts(value, depth + 1) for value in given]
        return entries if any(new is not old for new, old in zip(entries, given, strict=True)) else given
    return given
