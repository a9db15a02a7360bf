"""Tokenizers as their tokenizer.json has them, read within limits; nothing of them is run."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import evolve, frozen
from modelmerger import InputError, Problem, read_beside, read_json, shown

from modelmerger_plugins.tokenizer.vocabularies import FAST, LIMIT, MOST_TOKENS, MOST_VALUES

TYPES = ("BPE", "Unigram", "WordPiece")
LONGEST = 1 << 16
"""Characters of a token."""
FLAGS = MappingProxyType({"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True})
"""Of an added token of which nothing says them."""
Pair = tuple[str, str]


@frozen(eq=False)
class Document:
    """One tokenizer."""

    name: str
    """What messages call it: the name of its model."""
    place: str
    """Its file."""
    value: Mapping[str, Any]
    """All of it."""
    type: str
    """Of its model: one of `TYPES`."""
    vocabulary: Mapping[str, int]
    """Token → id, without those that are only added."""
    merges: Sequence[Pair]
    """Of BPE, in their order."""
    added: Sequence[Mapping[str, Any]]
    """The added tokens with their flags, by their ids."""

    @property
    def model(self) -> Mapping[str, Any]:
        """What cuts."""
        model: Mapping[str, Any] = self.value["model"]
        return model

    @property
    def by_bytes(self) -> bool:
        """Whether tokens are spelt in letters that stand for bytes."""
        parts = [self.value.get("pre_tokenizer"), self.value.get("decoder")]
        return self.type == "BPE" and any(_is_byte_level(part) for part in parts)

    @property
    def tokens(self) -> dict[str, int]:
        """Token → id, with added ones."""
        return {**self.vocabulary, **{token["content"]: token["id"] for token in self.added}}


def read_document(directory: Path, name: str) -> Document:
    """The tokenizer of a directory. Raises `InputError` for what is no sound tokenizer.json, or has none."""
    place = f"{directory}/{FAST}"
    content = read_beside(directory, FAST, LIMIT)
    if content is None:
        message = (
            "is missing, and a union of tokenizers needs it. Load the tokenizer once with transformers and save it."
        )
        raise InputError(Problem(message, place))
    return document_of(read_json(content, place, unique=False, nodes=MOST_VALUES), name, place)


def with_tokens(
    document: Document, tokens: Mapping[str, int], entries: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> Document:
    """The tokenizer with those of the tokens that it lacks, as added ones, which other files name.

    entries: what tokenizer_config.json says of tokens, of which the flags are taken.
    """
    known = document.tokens
    lacking = []
    for token, row in tokens.items():
        if token not in known:
            said = entries.get(token, {})
            flags = {key: said.get(key) if type(said.get(key)) is bool else default for key, default in FLAGS.items()}
            lacking.append({"id": row, "content": token, **flags})
    if not lacking:
        return document
    value = {**document.value, "added_tokens": [*document.added, *lacking]}
    return document_of(value, document.name, document.place)


def without_tokens(document: Document, names: Collection[str]) -> Document:
    """The tokenizer without some of its added tokens."""
    kept = [token for token in document.added if token["content"] not in names]
    return document if len(kept) == len(document.added) else evolve(document, added=kept)


def document_of(value: Any, name: str, place: str) -> Document:
    """The tokenizer of a parsed file. Raises `InputError` for what is not sound."""
    try:
        return _document(value, name, place)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise InputError(Problem(f"is no sound tokenizer: {UNSOUND}", place)) from None


UNSOUND = "its model or its added tokens are of another form. Save it anew with transformers."


def _document(value: Any, name: str, place: str) -> Document:
    model = value["model"]
    kind = model.get("type") or _guessed(model)
    if kind not in TYPES:
        message = f"has a model of type {str(kind)[:40]!r}, and tokenizers of type {', '.join(TYPES)} can be joined."
        raise InputError(Problem(f"{message} Name one model in options.tokenizer_source.", place))
    entries = model["vocab"]
    added = sorted(value.get("added_tokens") or (), key=lambda token: token["id"])
    merges = model.get("merges") or () if kind == "BPE" else ()
    if max(len(entries), len(merges), len(added)) > MOST_TOKENS:
        message = f"has more than {MOST_TOKENS:,} entries, which no tokenizer has. Remove what is not the model's."
        raise InputError(Problem(message, place))
    if isinstance(entries, list):
        _check(all(isinstance(score, int | float) and type(score) is not bool for _, score in entries))
        entries = {token: number for number, (token, _) in enumerate(entries)}
        _check(len(entries) == len(model["vocab"]))
    _check(all(type(token) is str and len(token) <= LONGEST for token in entries))
    _check(all(type(number) is int and 0 <= number < 2 * MOST_TOKENS for number in entries.values()))
    _check(all(type(token["content"]) is str and type(token["id"]) is int and token["id"] >= 0 for token in added))
    pairs = [_pair(merge) for merge in merges]
    return Document(name, place, value, kind, entries, pairs, added)


def check_merges(document: Document) -> None:
    """Raises `InputError` for a merge that is of no tokens, or makes none: the library takes no such file, and where a
    second half lacks the mark of parts of words it ends the process.
    """
    mark = document.model.get("continuing_subword_prefix") or ""
    if not isinstance(mark, str):
        raise InputError(Problem(f"is no sound tokenizer: {UNSOUND}", document.place))
    known = document.vocabulary
    for left, right in document.merges:
        made = left + right.removeprefix(mark)
        if left not in known or right not in known or made not in known or not right.startswith(mark):
            halves = " and ".join(shown(repr(half), 30) for half in (left, right))
            message = f"is no sound tokenizer: its merge of {halves} is not of tokens. Save it anew with transformers."
            raise InputError(Problem(message, document.place))


def _pair(merge: Any) -> Pair:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    _check(type(left) is str and type(right) is str)
    return left, right


def _check(sound: bool) -> None:
    if not sound:
        raise ValueError(UNSOUND)


def _guessed(model: Mapping[str, Any]) -> str:
    """The type of a model that does not say it, as old files do not."""
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "BPE" if "merges" in model else "WordPiece" if "max_input_chars_per_word" in model else "unnamed"


def _is_byte_level(part: Any) -> bool:
    if not isinstance(part, Mapping):
        return False
    inner = [steps for key in ("pretokenizers", "decoders") if isinstance(steps := part.get(key), list)]
    return part.get("type") == "ByteLevel" or any(_is_byte_level(step) for steps in inner for step in steps)
