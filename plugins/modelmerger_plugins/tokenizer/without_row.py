"""Tokens of the tokenizer that have no row in the embedding."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelmerger import InputError, Problem, is_embedding, read_beside, shown

from modelmerger_plugins.tokenizer.options import Sources
from modelmerger_plugins.tokenizer.vocabularies import FAST, LIMIT, MOST_TOKENS, added_tokens, vocabulary_of

MOST_NAMED = 3
"""Tokens that a warning names."""
_LISTED = rb'"vocab":\s*\['
_NUMBER = rb'":\s*([0-9]{1,18})\s*[,}]'


def problems_with_rows(sources: Sources) -> Iterator[Problem]:
    """A warning where the tokenizer that the merged model gets has ids beyond the embedding."""
    donor, directory = sources.donor, sources.tokenizer.donor.directory
    rows = [info.shape[0] for name, info in donor.tensors.items() if is_embedding(name) and len(info.shape) > 1]
    if not rows or directory is None:
        return
    beyond = {row: token for token, row in _tokens(sources, directory, max(rows)).items() if row >= max(rows)}
    if beyond:
        ids = sorted(beyond)
        named = ", ".join(shown(beyond[row], 20) for row in ids[:MOST_NAMED])
        way = "No vocabulary has so many, so the file is damaged: use the one that the model was saved with."
        if ids[-1] <= MOST_TOKENS:
            way = f"If they are used, call resize_token_embeddings({ids[-1] + 1}) on every model and save it."
        message = (
            f"the tokenizer's {_listed(ids)} beyond the {max(rows):,} rows of the embedding ({named}"
            f"{', …' if len(ids) > MOST_NAMED else ''}). {way}"
        )
        yield Problem(message, sources.tokenizer.place, severity="warning")


def _listed(ids: list[int]) -> str:
    """`id 96 lies`, `ids 96 and 97 lie`, `ids 96 to 103 lie`."""
    if len(ids) == 1:
        return f"id {shown(ids[0], 20)} lies"
    return f"ids {shown(ids[0], 20)} {'and' if len(ids) == 2 else 'to'} {shown(ids[-1], 20)} lie"


def _tokens(sources: Sources, directory: Path, rows: int) -> Mapping[str, int]:
    """Token → id of all files together. What cannot be read is for others to say.

    The largest file is parsed only where some number in it may be an id beyond the rows.
    """
    if sources.donor.donor.vocabulary is not None:
        return sources.donor.donor.vocabulary
    try:
        found = dict(added_tokens(directory))
        fast = read_beside(directory, FAST, LIMIT)
        if (fast is None or _may_go_beyond(fast, rows)) and (vocabulary := vocabulary_of(directory)):
            found |= vocabulary.rows if vocabulary.exact else {}
        return {token: int(row) for token, row in found.items()}
    except (InputError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return {}


def _may_go_beyond(content: bytes, rows: int) -> bool:
    if re.search(_LISTED, content):  # ids are places in a list
        return content.count(b"[") > rows
    return any(int(number) >= rows for number in re.findall(_NUMBER, content))
