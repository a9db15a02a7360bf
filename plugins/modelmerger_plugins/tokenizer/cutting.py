"""What decides where a tokenizer cuts texts, beside its vocabulary."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

PARTS = ("normalizer", "pre_tokenizer")


def cutting_of(value: Mapping[str, Any]) -> dict[str, str]:
    """Each part of a parsed tokenizer.json, by its name → a digest of it. Merges may be spelt in either way."""
    found = {part: _digest([json.dumps(value.get(part), sort_keys=True)]) for part in PARTS}
    merges, vocabulary = value["model"].get("merges"), value["model"]["vocab"]
    if isinstance(merges, list):
        found["merges"] = _digest(" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in merges)
    if isinstance(vocabulary, list):
        found["scores"] = _digest(str(entry[1:]) for entry in vocabulary)
    return found


def differing(ours: Mapping[str, str], theirs: Mapping[str, str], parts: Iterable[str] | None = None) -> str:
    """`normalizer and merges`: what two tokenizers have otherwise; empty for nothing, or where one does not say it.

    parts: what is compared; None for all.
    """
    both = [part for part in parts or ours if part in ours and part in theirs]
    return " and ".join(part for part in both if ours[part] != theirs[part])


def _digest(texts: Iterable[str]) -> str:
    hasher = hashlib.blake2b()
    for text in texts:
        hasher.update(text.encode(errors="surrogatepass") + b"\n")
    return hasher.hexdigest()
