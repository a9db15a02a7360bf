"""Compares the models' tokenizers: tokens that are other rows of the embedding would be mixed up without a word."""

from collections.abc import Iterable, Mapping
from typing import Any

from modelmerger import Checkpoint, InputError, Problem, read_beside, read_json


def compare_tokenizers(donor: Checkpoint, other: Checkpoint) -> Iterable[Problem]:
    """Warns about tokens that are other rows of the embedding in another model, which a merge would silently mix up."""
    ours, theirs = _tokenizer(donor), _tokenizer(other)
    if ours is None or theirs is None or ours == theirs:
        return
    try:
        left, right = _vocabulary(ours), _vocabulary(theirs)
    except (InputError, AttributeError, TypeError, LookupError):
        yield Problem(
            "cannot be compared with the donor's: it has another form.",
            f"{other.place}/tokenizer.json",
            severity="warning",
        )
        return
    moved = sum(1 for token, row in right.items() if left.get(token, row) != row) + len(left.keys() ^ right.keys())
    if moved:
        message = (
            f"{moved:,} tokens stand for other rows of the embedding than in '{donor.name}', whose tokenizer is taken."
        )
        yield Problem(message, f"{other.place}/tokenizer.json", severity="warning")


def _tokenizer(checkpoint: Checkpoint) -> bytes | Mapping[str, int] | None:
    """A view's vocabulary, or the tokenizer's file."""
    directory = checkpoint.donor.directory
    if checkpoint.donor.vocabulary is not None:
        return checkpoint.donor.vocabulary
    if directory is None:
        return None
    try:
        return read_beside(directory, "tokenizer.json")
    except InputError:
        return None


def _vocabulary(tokenizer: bytes | Mapping[str, int]) -> Mapping[str, Any]:
    """Token → row, with added tokens."""
    if isinstance(tokenizer, Mapping):
        return tokenizer
    content = read_json(tokenizer, "tokenizer.json", unique=False)
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: row for row, entry in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in content.get("added_tokens", ())}}
