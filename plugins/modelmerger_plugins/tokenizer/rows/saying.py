"""What is said of vocabularies that differ: how they lie to each other, and what becomes of them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from modelmerger import ModelCompatibilityError, Problem, amount, shown

from modelmerger_plugins.tokenizer.comparing import cut_otherwise
from modelmerger_plugins.tokenizer.cutting import PARTS, differing
from modelmerger_plugins.tokenizer.readable import readable, script_of_text
from modelmerger_plugins.tokenizer.rows.matching import Matching
from modelmerger_plugins.tokenizer.rows.matrices import of_other_sizes, of_unknown_names
from modelmerger_plugins.tokenizer.rows.models import OfModel
from modelmerger_plugins.tokenizer.rows.reserved import is_reserved
from modelmerger_plugins.tokenizer.rows.unread import FIRST, way_out, what_is_there
from modelmerger_plugins.tokenizer.union.saying import problems_with_union

LEAST_SHARED = 0.1
"""The share of the smaller vocabulary's tokens that both must have."""
EXAMPLES = 3
PUBLISH = ", or publish this merge first, with tokenizer_source: union."


def check_related(matching: Matching, *, within: bool = False) -> None:
    """Raises `ModelCompatibilityError` for vocabularies that have hardly a token in common, unless they are joined.

    within: whether the merge lies within another one, where they cannot be.
    """
    advice = PUBLISH if within else ", or set options.tokenizer_source: union."
    problems = [] if matching.union is not None else list(_unrelated(matching, advice))
    if problems:
        raise ModelCompatibilityError(*problems)


def problems_with_matching(matching: Matching, *, within: bool = False) -> Iterator[Problem]:
    """A note on each model whose rows are matched, and a warning about what is lost. within: see `check_related`."""
    source = matching.models[matching.source]
    if not matching.differs:
        yield from _resized(matching)
        yield from _unmatched(matching)
        for model in matching.models:
            yield from _cut_otherwise(source, model)
        return
    message = (
        f"gives the vocabulary: {len(matching.tokens):,} tokens, {matching.rows:,} rows. "
        "Rows are matched by token, since the models' vocabularies differ."
    )
    yield Problem(message, source.place, severity="note")
    if matching.union is not None:
        yield from _unrelated(matching, ".", "warning")
        yield from problems_with_union(matching.union, source.place)
    yield from _unmatched(matching)
    for index, model in enumerate(matching.models):
        if index in matching.assumed:
            named = matching.models[matching.assumed[index]].checkpoint.name
            message = (
                f"has {what_is_there(model)}; its {model.rows:,} rows are taken to be those of '{named}'. "
                f"{way_out(model)} if they are others."
            )
            yield Problem(message, model.checkpoint.place, severity="warning")
        elif index != matching.source and model.tokens is not None:
            yield Problem(_relation(matching, index), model.place, severity="note")
            yield from _lost(matching, index, within=within)
            if matching.union is None:
                yield from _cut_otherwise(source, model, PARTS)


def _cut_otherwise(source: OfModel, model: OfModel, parts: Iterable[str] | None = None) -> Iterator[Problem]:
    """A note where a tokenizer cuts otherwise. parts: see `differing`; merges of other tokens are others."""
    if found := differing(source.cutting, model.cutting, parts):
        yield Problem(cut_otherwise(source.checkpoint, found), model.place, severity="note")


def _resized(matching: Matching) -> Iterator[Problem]:
    """A note on each model that has another number of rows than the merged one, though the tokens are the same."""
    source = matching.models[matching.source]
    if source.rows != matching.rows:
        message = f"has {source.rows:,} rows, and the merged model {matching.rows:,}, as pad_to_multiple_of wants it."
        yield Problem(message, source.place, severity="note")
        return
    for model in matching.models:
        if model.rows != matching.rows and model.rows is not None:
            of_source = f"{matching.rows:,} rows, as '{source.checkpoint.name}' has"
            message = f"has the tokens of the others and {model.rows:,} rows; the merged model has {of_source}."
            yield Problem(message, model.place, severity="note")


def _unmatched(matching: Matching) -> Iterator[Problem]:
    """A warning about each tensor whose rows may be tokens', and are left where they are."""
    said = set[str]()
    for model in (model for model, own in zip(matching.models, matching.own, strict=True) if own is not None):
        rows = model.rows or 0
        as_many = f"has {rows:,} rows, as many as the embedding, and its name is none of an embedding or LM head"
        found = dict.fromkeys(of_unknown_names(model.checkpoint, rows), as_many)
        for name in of_other_sizes(model.checkpoint, rows):
            found[name] = f"has {model.checkpoint.tensors[name].shape[0]:,} rows, and the embedding {rows:,}"
        for name in (name for name in found if name not in said):
            message = f"{found[name]}, so that its rows are not matched by token. If they are tokens', {FIRST}"
            yield Problem(message, model.checkpoint.place, name, severity="warning")
        said |= found.keys()


def _relation(matching: Matching, index: int) -> str:
    """`extends the vocabulary of 'base': 1,024 tokens shared, 990 added, none missing.`"""
    ours, theirs = matching.models[matching.source].tokens or {}, matching.own[index] or {}
    shared = [token for token in theirs if token in ours]
    added, missing = len(theirs) - len(shared), len(ours) - len(shared)
    moved = sum(theirs[token] != ours[token] for token in shared)
    name = f"'{matching.models[matching.source].checkpoint.name}'"
    if not added and not missing:
        what = f"has the tokens of {name} in other rows ({moved:,} moved)" if moved else f"has the tokens of {name}"
    elif not missing:
        what = f"extends the vocabulary of {name}"
    elif not added:
        what = f"has a part of the vocabulary of {name}"
    else:
        what = f"has another vocabulary than {name}"
    counts = f"{amount(len(shared), 'token')} shared, {added:,} added, {missing:,} missing"
    return f"{what}: {counts}; {moved:,} of those shared stand in other rows. They are matched."


def _lost(matching: Matching, index: int, *, within: bool) -> Iterator[Problem]:
    theirs = [token for token in matching.own[index] or {} if token not in matching.tokens and not is_reserved(token)]
    if not theirs:
        return
    texts = {token: readable(token) for token in theirs}
    scripts = Counter(filter(None, map(script_of_text, texts.values())))
    main = scripts.most_common(1)[0][0] if scripts else ""
    examples = [text for text in texts.values() if script_of_text(text) == main][:EXAMPLES]
    named = ", ".join(repr(shown(text, 20)) for text in examples)
    model = matching.models[index]
    are, them = ("is", "it") if len(theirs) == 1 else ("are", "them")
    way = f"Set options.tokenizer_source to {shown(model.checkpoint.name, 40)}, or to union."
    if within:
        way = "To keep them, publish this merge first, with tokenizer_source: union."
    elif matching.union is not None:  # as it must be: texts that another tokenizer leads are cut as by that
        way = f"To keep {them}, set options.tokenizer_source to {shown(model.checkpoint.name, 40)}."
    message = (
        f"{amount(len(theirs), 'token')} of '{model.checkpoint.name}' {are} not in the merged vocabulary ({named}), "
        f"and what was learnt of {them} is lost. {way}"
    )
    yield Problem(message, model.place, severity="warning" if matching.union is None else "note")


def _unrelated(matching: Matching, advice: str, severity: Literal["error", "warning"] = "error") -> Iterator[Problem]:
    source = matching.models[matching.source]
    ours = source.tokens or {}
    for index, model in enumerate(matching.models):
        theirs = model.tokens
        if index == matching.source or theirs is None:
            continue
        shared, least = sum(token in ours for token in theirs), min(len(ours), len(theirs))
        if shared < LEAST_SHARED * least:
            message = (
                f"has {len(theirs):,} tokens and '{source.checkpoint.name}' {len(ours):,}, and they share {shared:,}: "
                "unrelated vocabularies."
            )
            yield Problem(f"{message} Merge models of one family{advice}", model.place, severity=severity)
