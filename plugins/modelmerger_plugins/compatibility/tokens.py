"""Tokens of the tokenizer that have no row in the embedding."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelmerger import Checkpoint, InputError, Problem, is_embedding, read_beside, read_json, shown

MOST_NAMED = 3
"""Tokens that a warning names."""
_LISTED = re.compile(rb'"vocab":\s*\[')
_NUMBER = re.compile(rb'":\s*([0-9]{1,18})\s*[,}]')


def tokens_without_row(donor: Checkpoint) -> Iterator[Problem]:
    """A warning where the tokenizer that the merged model gets has ids beyond the embedding."""
    rows = [info.shape[0] for name, info in donor.tensors.items() if is_embedding(name) and len(info.shape) > 1]
    if not rows or donor.donor.directory is None:
        return
    beyond: dict[int, str] = {}
    for tokens in _vocabularies(donor, max(rows)):
        beyond |= {row: token for token, row in tokens.items() if isinstance(row, int) and row >= max(rows)}
    if beyond:
        ids = sorted(beyond)
        named = ", ".join(shown(beyond[row], 20) for row in ids[:MOST_NAMED])
        message = (
            f"the tokenizer's {_listed(ids)} beyond the {max(rows):,} rows of the embedding ({named}"
            f"{', …' if len(ids) > MOST_NAMED else ''}). If they are used, call resize_token_embeddings({ids[-1] + 1}) "
            "on every model and save it."
        )
        yield Problem(message, donor.place, severity="warning")


def _listed(ids: list[int]) -> str:
    """`id 96 lies`, `ids 96 and 97 lie`, `ids 96 to 103 lie`."""
    if len(ids) == 1:
        return f"id {ids[0]} lies"
    return f"ids {ids[0]} {'and' if len(ids) == 2 else 'to'} {ids[-1]} lie"


def _vocabularies(checkpoint: Checkpoint, rows: int) -> Iterator[Mapping[str, Any]]:
    """Token → id, of each file that may have an id beyond the rows. What cannot be read is for others to say."""
    if checkpoint.donor.vocabulary is not None:
        yield checkpoint.donor.vocabulary
        return
    content = _read(checkpoint, "tokenizer.json", rows)
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocabulary, list):
        yield {str(entry[0]): row for row, entry in enumerate(vocabulary) if isinstance(entry, list) and entry}
    elif isinstance(vocabulary, Mapping):
        yield vocabulary
    added = content.get("added_tokens")
    yield {
        str(token.get("content")): token.get("id")
        for token in (added if isinstance(added, list) else ())
        if isinstance(token, Mapping)
    }
    yield _read(checkpoint, "added_tokens.json", rows)


def _read(checkpoint: Checkpoint, name: str, rows: int) -> Mapping[str, Any]:
    """What the file says; nothing where no number in it can be an id beyond the rows, which is seen without parsing."""
    assert checkpoint.donor.directory is not None
    try:
        content = read_beside(checkpoint.donor.directory, name)
        if content is None or not _may_go_beyond(content, rows):
            return {}
        found = read_json(content, name, unique=False)
    except InputError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _may_go_beyond(content: bytes, rows: int) -> bool:
    if _LISTED.search(content):  # ids are places in a list
        return content.count(b"[") > rows
    return any(int(number) >= rows for number in _NUMBER.findall(content))
