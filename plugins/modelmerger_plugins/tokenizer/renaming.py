"""Tokenizer files in which reserved tokens have their new names."""

from collections.abc import Mapping
from typing import Any

FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "added_tokens.json")
"""The files that name tokens."""


def with_new_names(value: Any, renamed: Mapping[str, str]) -> Any:
    """The content of a file with tokens renamed wherever one is named alone: as a key, or as a text."""
    if isinstance(value, str):
        return renamed.get(value, value)
    if isinstance(value, list):
        return [with_new_names(one, renamed) for one in value]
    if isinstance(value, Mapping):
        return {renamed.get(key, key): with_new_names(one, renamed) for key, one in value.items()}
    return value
