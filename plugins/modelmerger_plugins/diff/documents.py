"""What differs beside the weights: keys of configs, the vocabulary, and files by their content."""

import hashlib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from attrs import frozen
from modelmerger import EMBEDDER_FILES, PROCESSOR_FILES, TOKENIZER_FILES, list_directory, read_beside, read_json

_COMPARED = (*TOKENIZER_FILES, *PROCESSOR_FILES, *EMBEDDER_FILES)
"""Shell patterns of the files beside the weights that are compared."""


@frozen
class Changed:
    """A key of a config whose value differs, or a file."""

    where: str
    """`config.json: rope_theta`, or the name of the file."""
    a: Any
    """The value in A; None where it has none."""
    b: Any
    """The value in B; None where it has none."""
    is_file: bool = False
    """Whether it is a file, whose values are the beginnings of digests."""


def config_changes(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, name: str) -> list[Changed]:
    """The keys, at all levels, whose values differ."""
    return [Changed(f"{name}: {key}", old, new) for key, old, new in _changes(a or {}, b or {}, "")]


def _changes(a: Mapping[str, Any], b: Mapping[str, Any], within: str) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*a, *b]):
        old, new = a.get(key), b.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new, f"{within}{key}.")
        elif old != new:
            yield f"{within}{key}", old, new


def file_changes(a: Path | None, b: Path | None) -> list[Changed]:
    """Files of tokenizers, processors and templates that differ or are missing: the beginnings of their digests."""
    if a is None or b is None:
        return []
    old, new = _digests(a), _digests(b)
    return [
        Changed(name, old.get(name), new.get(name), True)
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def vocabulary_change(a: Path | None, b: Path | None) -> dict[str, int] | None:
    """How many tokens are in both under one id, under another, and in one alone; None without two tokenizer.json."""
    found = [_vocabulary(place) for place in (a, b)]
    if found[0] is None or found[1] is None:
        return None
    old, new = found[0], found[1]
    same = sum(new.get(token) == number for token, number in old.items())
    shared = len(old.keys() & new.keys())
    return {"same": same, "moved": shared - same, "only_a": len(old) - shared, "only_b": len(new) - shared}


def _vocabulary(directory: Path | None) -> dict[str, int] | None:
    content = read_beside(directory, "tokenizer.json") if directory is not None else None
    if directory is None or content is None:
        return None
    document = read_json(content, str(directory / "tokenizer.json"))
    model = document.get("model") if isinstance(document, dict) else None
    entries = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(entries, list):  # pieces with their scores, in the order of their ids
        entries = {piece[0]: number for number, piece in enumerate(entries) if isinstance(piece, list) and piece}
    if not isinstance(entries, dict):
        return None
    added = [token for token in document.get("added_tokens") or [] if isinstance(token, dict)]
    return {**entries, **{token["content"]: token["id"] for token in added if {"content", "id"} <= token.keys()}}


def _digests(directory: Path) -> dict[str, str]:
    """The beginnings of the digests of the files."""
    names = [name for name in list_directory(directory) if any(fnmatchcase(name, known) for known in _COMPARED)]
    found = {name: read_beside(directory, name) for name in names}
    return {name: hashlib.blake2b(content or b"", digest_size=6).hexdigest() for name, content in found.items()}
