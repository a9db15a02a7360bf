"""The differences of two models as lines of text."""

import json
from collections.abc import Iterator
from typing import Any

from modelmerger import amount, shown

from modelmerger_plugins.diff.differences import Differences
from modelmerger_plugins.diff.documents import Changed

MOST = 10
"""Tensors, keys and files that are listed; `--json` has all."""


def lines_of(found: Differences) -> Iterator[str]:
    """What differs, from the whole to the parts."""
    yield f"A  {shown(found.a)}"
    yield f"B  {shown(found.b)}"
    if found.are_equal:
        yield f"equal: {amount(found.tensors, 'tensor')}, configs and files beside them"
        return
    how = "" if found.compared == "numbers" else " (digests alone; give the directories to see how far)"
    yield f"{found.changed:,} of {amount(found.tensors, 'tensor')} differ{how}"
    if found.compared == "numbers" and found.changed:
        yield f"distance  ‖B − A‖ / ‖A‖ = {percent(found.relative)}, cosine {_number(found.cosine)}"
    yield from _some("only in A", found.only_a)
    yield from _some("only in B", found.only_b)
    yield from _some("other shapes", [f"{name} {list(a)} and {list(b)}" for name, (a, b) in found.shapes.items()])
    if found.changed:
        yield from _by_layer(found)
    for one in list(found.documents)[:MOST]:
        yield f"{shown(one.where)}: {said_of(one)}"
    if len(found.documents) > MOST:
        yield f"… and {len(found.documents) - MOST} more keys and files"
    if (counts := found.vocabulary) is not None and any(counts[kind] for kind in ("moved", "only_a", "only_b")):
        parts = [f"{counts['same']:,} tokens with the same id", f"{counts['moved']:,} with another"]
        yield f"vocabulary: {', '.join(parts)}, {counts['only_a']:,} only in A, {counts['only_b']:,} only in B"


def _by_layer(found: Differences) -> Iterator[str]:
    width = max(len("layer"), *(len(shown(group.name)) for group in found.groups))
    yield f"{'layer':<{width}}  changed  distance"
    for group in found.groups:
        changed = f"{group.changed}/{group.tensors}"
        yield f"{shown(group.name):<{width}}  {changed:>7}  {percent(group.relative):>8}".rstrip()
    farthest = sorted(found.changes, key=lambda row: -(row["relative"] or 0))[:MOST]
    if found.compared == "numbers":
        yield "the tensors that moved farthest:"
        yield from (f"  {percent(row['relative']):>8}  {shown(row['name'])}" for row in farthest)


def _some(what: str, names: list[str] | Any) -> Iterator[str]:
    if names:
        more = f", … {len(names) - MOST} more" if len(names) > MOST else ""
        yield f"{what} ({len(names):,}): {', '.join(shown(name) for name in list(names)[:MOST])}{more}"


def percent(share: float | None) -> str:
    """A share with three digits that count; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.3g} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6f}"


def said_of(one: Changed) -> str:
    """How a key or a file differs."""
    if one.is_file:
        return "differs" if one.a and one.b else f"only in {'A' if one.a else 'B'}"
    return f"{value(one.a)} → {value(one.b)}"


def value(found: Any) -> str:
    """A value of a config; a dash where there is none."""
    return "–" if found is None else shown(json.dumps(found, ensure_ascii=False), 60)
