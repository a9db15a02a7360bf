"""What the process does that tries a tokenizer out: it is built and run, and nothing but that it ends is told."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer


def tokenized(asked: Mapping[str, Any]) -> None:
    """Takes the texts apart and puts them together again, and the ids together and apart.

    tokenizer: what tokenizer.json holds, for which whoever loads it has errors of its own. texts; ids: lists of them.
    """
    try:
        tokenizer = Tokenizer.from_str(asked["tokenizer"])
    except Exception:
        return
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for text in asked["texts"]:
        tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids)
    for ids in asked["ids"]:
        tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False)
