"""The union of two BPE tokenizers: three groups of merges, one behind the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger_plugins.tokenizer.union.documents import Document, Pair
from modelmerger_plugins.tokenizer.union.imported import Imported
from modelmerger_plugins.tokenizer.union.leaders import Leaders
from modelmerger_plugins.tokenizer.union.scripts import Scripts
from modelmerger_plugins.tokenizer.union.spelling import script_of


def joined_merges(first: Document, imported: Imported, leaders: Leaders, scripts: Scripts) -> list[Pair]:
    """Each merge once: those of the first that make nothing of the second's scripts; the imported; the first's others.

    A text without a script of the second's sees the first group alone, and so is cut as before.
    """
    others, theirs = list[Pair](), list[Pair]()
    for pair in first.merges:
        found = script_of("".join(pair), scripts, by_bytes=first.by_bytes)
        (theirs if found & leaders.second else others).append(pair)
    return list(dict.fromkeys([*others, *imported.merges, *theirs]))


def joined_model(
    first: Document, tokens: Mapping[str, int], merges: Sequence[Pair], added: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The first's document with all tokens in its vocabulary, so that ids have no gap; all else is as it was.

    tokens: with added ones. `tokenizers` numbers an added token that the vocabulary lacks from the count of entries.
    """
    model = {**first.model, "vocab": dict(sorted(tokens.items(), key=lambda entry: entry[1]))}
    if first.type == "BPE":
        given: Sequence[Any] = first.model.get("merges") or ()
        as_texts = bool(given) and isinstance(given[0], str) and not any(" " in "".join(pair) for pair in merges)
        model["merges"] = [f"{left} {right}" if as_texts else [left, right] for left, right in merges]
    return {**first.value, "added_tokens": list(added), "model": model}
