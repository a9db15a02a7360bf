"""The pieces that a model's tokenizer cuts the text of a token into."""

from collections.abc import Callable, Sequence
from typing import Any

from modelmerger import read_beside

from modelmerger_plugins.tokenizer.rows.models import OfModel
from modelmerger_plugins.tokenizer.vocabularies import FAST, LIMIT


def pieces_of(model: OfModel, union: Any) -> Callable[[str], Sequence[int]]:
    """Cuts a token into rows of the model, without normaliser or pre-tokenizer; nothing where that cannot be done.

    union: what was joined, which knows how a token is spelt in the model's own alphabet; None where tokens are alike.
    """
    content = None if model.directory is None else read_beside(model.directory, FAST, LIMIT)
    if content is None:
        return lambda _: ()
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception:  # of the library's own, for whatever it cannot read
        return lambda _: ()
    unknown = getattr(tokenizer.model, "unk_token", None)

    def cut(token: str) -> Sequence[int]:
        text = token if union is None else union.spelt(model, token)
        try:
            found = tokenizer.model.tokenize(text)
        except Exception:
            return ()
        rows = [piece.id for piece in found]
        return () if any(piece.value == unknown or piece.id >= (model.rows or 0) for piece in found) else rows

    return cut
