"""The union of two Unigram tokenizers: pieces with scores, without ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger_plugins.tokenizer.union.documents import Document
from modelmerger_plugins.tokenizer.union.imported import Imported
from modelmerger_plugins.tokenizer.union.leaders import Leaders
from modelmerger_plugins.tokenizer.union.scripts import Scripts


def joined_pieces(
    first: Document,
    second: Document,
    imported: Imported,
    leaders: Leaders,
    scripts: Scripts,
    added: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The first's document with the second's pieces behind its own.

    Pieces of scripts that the second leads have its scores; what only the first has of them is shifted by the mean
    difference over those that both have, so that one scale holds for all.
    """
    theirs = {piece: float(score) for piece, score in second.model["vocab"]}
    ours = {piece: float(score) for piece, score in first.model["vocab"]}
    special = {token["content"] for token in first.added}
    led = [piece for piece in ours if piece not in special and scripts.of(piece) & leaders.second]
    shared = [piece for piece in led if piece in theirs]
    shift = sum(theirs[piece] - ours[piece] for piece in shared) / len(shared) if shared else 0.0
    scores = ours | {piece: theirs.get(piece, ours[piece] + shift) for piece in led}
    pieces = [[piece, scores[piece]] for piece in ours] + [[piece, theirs[piece]] for piece in imported.entries]
    pieces += [[token["content"], 0.0] for token in added if token["content"] not in ours]
    return {**first.value, "added_tokens": list(added), "model": {**first.model, "vocab": pieces}}
