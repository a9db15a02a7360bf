"""The pieces that a model's tokenizer cuts the text of a token into."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from modelmerger import InputError, Problem, list_directory

from modelmerger_plugins.tokenizer.rows.models import OfModel
from modelmerger_plugins.tokenizer.union.documents import check_merges, read_document
from modelmerger_plugins.tokenizer.union.spelling import as_bytes, spelt_in_bytes, spelt_in_characters
from modelmerger_plugins.tokenizer.vocabularies import FAST

ALONE = {"version": "1.0", "added_tokens": []}
"""What a tokenizer is beside the model that cuts."""
MARKS = ("unk_token", "continuing_subword_prefix", "end_of_word_suffix")
"""Attributes of what cuts: its token for what it does not know, and marks of the parts of words."""


def pieces_of(model: OfModel, *, in_bytes: bool) -> Callable[[str], Sequence[int]]:
    """Cuts a token into rows of the model, without normaliser or pre-tokenizer; nothing where that cannot be done.

    in_bytes: whether tokens are spelt in letters for bytes, and those of the model may be spelt in characters. What it
    gives raises `InputError` for a model without a tokenizer.json that the library can read.
    """
    if model.directory is None or FAST not in list_directory(model.directory):
        return _refusing(model, f"has no {FAST}" if model.file != FAST else f"has a {FAST} that cannot be used")
    from tokenizers import Tokenizer

    try:
        document = read_document(model.directory, model.checkpoint.name)
        check_merges(document)
        sure = {key: value for key, value in document.model.items() if key != "dropout"}  # the same pieces each time
        cutting: Any = Tokenizer.from_str(json.dumps({**ALONE, "model": sure})).model
    except BaseException as error:  # of the library's own, whose panics are no Exceptions
        if isinstance(error, KeyboardInterrupt):
            raise
        return _refusing(model, f"has a {FAST} that tokenizers cannot read")
    spelt = document.by_bytes
    unknown, prefix, suffix = (getattr(cutting, name, None) for name in MARKS)

    def cut(token: str) -> Sequence[int]:
        text = spelt_in_characters(token) if in_bytes and not spelt else token
        if spelt and as_bytes(text) is None:  # an added token, which is a text as it is
            text = spelt_in_bytes(text)
        text = text.removeprefix(prefix or "").removesuffix(suffix or "")
        try:
            found = cutting.tokenize(text)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return ()
        known = all(piece.value != unknown and piece.value == cutting.id_to_token(piece.id) for piece in found)
        rows = [piece.id for piece in found]
        return rows if known and all(row < (model.rows or 0) for row in rows) else ()

    return cut


def _refusing(model: OfModel, why: str) -> Callable[[str], Sequence[int]]:
    def refuse(_: str) -> Sequence[int]:
        message = (
            f"{why}, and missing_tokens: mean_subtokens cuts tokens with it that the model lacks. "
            "Load the tokenizer once with transformers and save it, or give another rule."
        )
        raise InputError(Problem(message, model.checkpoint.place))

    return refuse
