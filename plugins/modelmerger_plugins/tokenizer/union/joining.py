"""The union of several tokenizers, in their order."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from modelmerger_plugins.tokenizer.cutting import PARTS
from modelmerger_plugins.tokenizer.union.bpe import joined_merges, joined_model
from modelmerger_plugins.tokenizer.union.documents import Document, document_of
from modelmerger_plugins.tokenizer.union.imported import Imported, imported_into, seen_as_first
from modelmerger_plugins.tokenizer.union.leaders import Leaders, leaders_of
from modelmerger_plugins.tokenizer.union.refusals import check_normaliser, check_pair
from modelmerger_plugins.tokenizer.union.scripts import Scripts
from modelmerger_plugins.tokenizer.union.spelling import script_of
from modelmerger_plugins.tokenizer.union.unigram import joined_pieces
from modelmerger_plugins.tokenizer.union.wordpiece import imported_words


@frozen(eq=False)
class Joined:
    """What came of one tokenizer that was joined to those before it."""

    name: str
    """The name of its model."""
    leaders: Leaders
    """Who leads which script."""
    imported: Imported
    """What was taken."""
    added: int
    """How many added tokens were taken."""
    conflicts: int
    """Merges that both have of which the order, or the halves, differ."""
    differing: Sequence[str] = ()
    """The parts of its file that cut texts otherwise than the first's: normalizer, pre_tokenizer."""


@frozen(eq=False)
class Union:
    """One tokenizer made of several."""

    value: Mapping[str, Any]
    """Its tokenizer.json."""
    tokens: Mapping[str, int]
    """Token → id, added ones too."""
    own: Sequence[Mapping[str, int]]
    """For each of the tokenizers, token of the union → its own id."""
    joined: Sequence[Joined]
    """What came of each but the first."""
    added: Sequence[Mapping[str, Any]] = field(factory=list)
    """Added tokens that the first lacks, with their flags and ids."""
    by_bytes: bool = False
    """Whether tokens are spelt in letters that stand for bytes."""


def union_of(documents: Sequence[Document]) -> Union:
    """The union of tokenizers, the first one first. Raises `InputError` where they cannot be joined."""
    first, scripts = documents[0], Scripts()
    own: list[Mapping[str, int]] = [first.tokens]
    joined: list[Joined] = []
    added: list[Mapping[str, Any]] = []
    for second in documents[1:]:
        made, ids, what, more = _join(first, second, scripts)
        first = made
        own.append(ids)
        joined.append(what)
        added += more
    return Union(first.value, first.tokens, own, joined, added, documents[0].by_bytes)


def _join(
    first: Document, second: Document, scripts: Scripts
) -> tuple[Document, Mapping[str, int], Joined, Sequence[Mapping[str, Any]]]:
    check_pair(first, second)
    scripts.learn([] if first.by_bytes else first.vocabulary)
    seen = seen_as_first(second, first, scripts)
    of_first = (script_of(token, scripts, by_bytes=first.by_bytes) for token in first.vocabulary)
    leaders = leaders_of(of_first, (seen.scripts[token] for token in seen.spelt.values()))
    check_normaliser(first, seen, leaders)
    known = first.tokens
    if first.type == "BPE":
        imported = imported_into(first, known, seen, leaders)
    else:
        imported = imported_words(known, seen, leaders)
    behind = max(known.values(), default=-1) + 1
    tokens = {**known, **{token: behind + number for number, token in enumerate(imported.entries)}}
    lacking = [token for token in second.added if token["content"] not in tokens]
    more = [{**token, "id": behind + len(imported.entries) + number} for number, token in enumerate(lacking)]
    tokens |= {token["content"]: token["id"] for token in more}
    added = [*first.added, *more]
    conflicts = 0
    if first.type == "Unigram":
        value = joined_pieces(first, second, imported, leaders, scripts, added)
    else:
        merges = joined_merges(first, imported, leaders, scripts)
        value = joined_model(first, tokens, merges, added)
        conflicts = _conflicts(first, imported)
    differing = [part for part in PARTS if first.value.get(part) != second.value.get(part)]
    made = document_of(value, first.name, first.place)
    ids = {spelt: seen.document.vocabulary[token] for token, spelt in reversed(list(seen.spelt.items()))}
    ids |= {token["content"]: token["id"] for token in second.added}
    return made, ids, Joined(second.name, leaders, imported, len(more), conflicts, differing), more


def _conflicts(first: Document, imported: Imported) -> int:
    """Results that both make, of other halves; and merges that both have, in another order."""
    halves = {left + right: (left, right) for left, right in reversed(first.merges)}
    order = {pair: rank for rank, pair in enumerate(first.merges)}
    other = sum(1 for left, right in imported.merges if halves.get(left + right, (left, right)) != (left, right))
    ranks = [order[pair] for pair in imported.merges if pair in order]
    highest, moved = -1, 0
    for rank in ranks:
        moved += rank < highest
        highest = max(highest, rank)
    return other + moved
