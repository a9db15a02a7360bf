"""Tokenizers that cannot be joined, each with what to do."""

import unicodedata
from collections.abc import Mapping
from typing import Any

from modelmerger import InputError, Problem, shown

from modelmerger_plugins.tokenizer.union.documents import Document, check_merges
from modelmerger_plugins.tokenizer.union.imported import Second
from modelmerger_plugins.tokenizer.union.leaders import Leaders

OTHERWISE = "Name one model in options.tokenizer_source instead of union."


def check_pair(first: Document, second: Document) -> None:
    """Raises `InputError` for two tokenizers that cannot be joined, whatever their vocabularies."""
    if first.type != second.type:
        raise _refused(second, f"is a {second.type} tokenizer, and that of '{first.name}' a {first.type} one.")
    if first.type == "BPE" and second.by_bytes and not first.by_bytes:
        message = (
            f"is spelt in bytes, and that of '{first.name}' in characters, where half a letter cannot be expressed. "
            f"Give '{second.name}' as base_model, or as the first model."
        )
        raise InputError(Problem(message, second.place))
    for one in (first, second):
        if one.model.get("dropout"):
            dropped = shown(repr(one.model["dropout"]), 20)
            raise _refused(one, f"drops merges at random (dropout {dropped}). Set it to null.")
        if one.type == "BPE":
            for key in ("continuing_subword_prefix", "end_of_word_suffix"):
                if one.model.get(key):
                    raise _refused(one, f"marks parts of words by {key} {shown(repr(one.model[key]), 20)}.")
    for one in (first, second):
        check_merges(one)
    prefixes = [one.model.get("continuing_subword_prefix", "##") for one in (first, second)]
    if first.type == "WordPiece" and prefixes[0] != prefixes[1]:
        said = " and ".join(shown(repr(prefix), 20) for prefix in reversed(prefixes))
        raise _refused(second, f"marks parts of words otherwise than '{first.name}' ({said}).")
    if first.type == "Unigram" and any(token["content"] not in first.vocabulary for token in first.added):
        raise _refused(first, "has added tokens behind its pieces, where further pieces would have their ids.")


def check_normaliser(first: Document, second: Second, leaders: Leaders) -> None:
    """Raises `InputError` where the first's normaliser makes other letters of those that the second leads."""
    normaliser = _of_letters(first.value.get("normalizer"))
    if normaliser is None or not leaders.second:
        return
    letters = {
        letter
        for token, spelt in second.spelt.items()
        if leaders.led(second.scripts[spelt])
        for letter in _text(token, second)
        if unicodedata.category(letter) == "Lo"
    }
    normalise = _normaliser(normaliser, first)
    for letter in sorted(letters):
        made = normalise(letter)
        if unicodedata.normalize("NFKC", letter) not in unicodedata.normalize("NFKC", made):
            message = (
                f"has a normaliser that makes {shown(made, 10)!r} of {letter!r}, which '{second.document.name}' "
                f"writes. Give '{second.document.name}' as base_model, or as the first model."
            )
            raise InputError(Problem(message, first.place))


def _of_letters(normaliser: Any) -> Any:
    """A normaliser without the step that spells bytes as letters, which changes no text; None where nothing is left."""
    if not isinstance(normaliser, Mapping) or normaliser.get("type") == "ByteLevel":
        return None
    if not isinstance(steps := normaliser.get("normalizers"), list):
        return normaliser
    kept = [step for step in map(_of_letters, steps) if step is not None]
    return {**normaliser, "normalizers": kept} if kept else None


def _text(token: str, second: Second) -> str:
    from modelmerger_plugins.tokenizer.readable import readable

    return readable(token) if second.document.by_bytes else token


def _normaliser(value: Any, first: Document) -> Any:
    """What the library makes of a text. Raises `InputError` where it cannot read the normaliser."""
    import json

    from tokenizers import Tokenizer

    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    document = {"version": "1.0", "added_tokens": [], "normalizer": value, "model": model}
    try:
        normaliser: Any = Tokenizer.from_str(json.dumps(document)).normalizer
        normaliser.normalize_str("a")
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        message = "has a normaliser that tokenizers cannot read. Save the tokenizer anew with transformers."
        raise InputError(Problem(message, first.place)) from error
    return normaliser.normalize_str


def _refused(document: Document, reason: str) -> InputError:
    return InputError(Problem(f"{reason} {OTHERWISE}", document.place))
