"""What a config says of the vocabulary, held against the matrices that have a row for each token."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelmerger import DTYPES, TensorInfo, is_embedding, is_head

KEY = "vocab_size"
LANGUAGE = ("text", "language", "llm", "lm")
"""What configs and tensors of a language model within a larger one begin with."""

Path = tuple[str, ...]
"""Keys from the top of the config to a level of it."""


def false_sizes(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> dict[Path, tuple[int, int]]:
    """Level of the config → the number of tokens that it claims, and the number of rows there are.

    A claim stands if any embedding or LM head of the level has as many rows: some classes add rows of their own. It
    also stands where the matrices do not agree, or where none can be told to be the level's.
    """
    rows = {
        name: info.shape[0]
        for name, info in tensors.items()
        if len(info.shape) == 2 and info.elements and DTYPES[info.dtype].family == "float" and _has_tokens(name)
    }
    found = {}
    for path, claimed in _claims(config, ()):
        own = {rows[name] for name in _of_level(path, config, list(rows))}
        if len(own) == 1 and claimed not in own:
            found[path] = claimed, own.pop()
    return found


def with_sizes(config: Mapping[str, Any], sizes: Mapping[Path, tuple[int, int]]) -> dict[str, Any]:
    """The config with the true numbers at these levels."""
    made = dict(config)
    for path, (_, rows) in sizes.items():
        level = made
        for key in path:
            level[key] = dict(level[key])
            level = level[key]
        level[KEY] = rows
    return made


def _has_tokens(name: str) -> bool:
    return is_embedding(name) or is_head(name)


def _claims(level: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, int]]:
    claimed = level.get(KEY)
    if isinstance(claimed, int) and not isinstance(claimed, bool):
        yield path, claimed
    for key, inner in level.items():
        if isinstance(inner, Mapping):
            yield from _claims(inner, (*path, key))


def _of_level(path: Path, config: Mapping[str, Any], names: Sequence[str]) -> Sequence[str]:
    """Those of the names that belong to a level, as far as names tell."""
    level = config
    for key in path:
        stem = key.removesuffix("_config")
        begins = LANGUAGE if stem in LANGUAGE else (stem,)
        own = [name for name in names if _has_part(name, begins)]
        if not own and stem in LANGUAGE:  # the language model lies at the top, beside other parts
            others = tuple(other.removesuffix("_config") for other in level if other.endswith("_config"))
            own = [name for name in names if not _has_part(name, tuple(set(others) - set(LANGUAGE)))]
        names, level = own, level[key]
    return names


def _has_part(name: str, begins: tuple[str, ...]) -> bool:
    return any(part.startswith(begins) for part in name.split("."))
