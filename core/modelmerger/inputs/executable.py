"""What in a config.json can make a loader run code: keys that name code, and attention or experts from elsewhere."""

from collections.abc import Iterator, Mapping
from typing import Any

NAMES = ("auto_map", "trust_remote_code", "custom_pipelines")
"""Keys that name code, or say that it is trusted."""
IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
"""How names of keys begin, after their underscores, that choose how attention and experts are computed."""
OWN = ("eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")
"""The implementations that transformers has in itself. It downloads others as kernels from the Hub and runs them."""


def is_executable(key: object) -> bool:
    """Whether the key can make a loader run code, whatever its value."""
    return key in NAMES or _is_implementation(key)


def executable_keys(config: Any) -> set[str]:
    """The keys, at any depth of a config as plain data, that can make a loader run code."""
    return {key for key, _ in _entries(config) if is_executable(key)}


def kernels(config: Any) -> list[str]:
    """What a config, as plain data, has transformers load and run that is not its own, at any depth: `key: value`,
    sorted.

    Other code that a config names (`auto_map`, `custom_pipelines`) is not among it: transformers leaves that alone
    unless it is told to trust it, and what `trust_remote_code` says in a config does not tell it so.
    """
    implementations = [(key, value) for key, value in _entries(config) if _is_implementation(key)]
    return sorted({f"{key}: {name}" for key, value in implementations for name in _texts(value) if name not in OWN})


def _is_implementation(key: object) -> bool:
    return isinstance(key, str) and key.lstrip("_").startswith(IMPLEMENTATIONS)


def _entries(config: Any) -> Iterator[tuple[Any, Any]]:
    """Keys and values at every level."""
    if isinstance(config, Mapping):
        yield from config.items()
    for part in _parts(config):
        yield from _entries(part)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value: itself, or one for each part of the model."""
    if isinstance(value, str):
        yield value
    for part in _parts(value):
        yield from _texts(part)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
