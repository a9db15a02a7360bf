"""Reserved tokens: rows that a tokenizer keeps for names that come later."""

import re
from collections.abc import Iterable, Mapping

_RESERVED = (
    r"<\|reserved_special_token_[0-9]{1,6}\|>|<unused[0-9]{1,6}>|\[unused[0-9]{1,6}\]|<extra_id_[0-9]{1,6}>"
    r"|<\|placeholder_?[0-9]{1,6}\|>"
)


def is_reserved(token: str) -> bool:
    """Whether a token is only a place for another one."""
    return token.startswith(("<", "[")) and re.fullmatch(_RESERVED, token) is not None


def renamed_tokens(tokens: Mapping[str, int], others: Iterable[Mapping[str, int]]) -> dict[str, str]:
    """Reserved tokens that other vocabularies have renamed under the same id → their new names, the first ones given.

    Only vocabularies that have half of the tokens under the same ids tell: in others, an id means nothing.
    """
    places = {row: token for token, row in tokens.items() if is_reserved(token)}
    found: dict[str, str] = {}
    for other in others if places else ():
        same = sum(1 for token, row in other.items() if tokens.get(token) == row)
        if 2 * same < min(len(tokens), len(other)):
            continue
        for token, row in other.items():
            place = places.get(row)
            new = place not in found and token not in tokens and token not in found.values()
            if place is not None and new and not is_reserved(token):
                found[place] = token
    return found
