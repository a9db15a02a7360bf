"""Any names of tensors → the names of a file: wrappers, prefixes and spellings apart."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

from modelmerger_plugins.names.rules import Found, Rule, find_rules
from modelmerger_plugins.names.spellings import todays
from modelmerger_plugins.names.templates import Shape, name_of, template_of, templates
from modelmerger_plugins.names.wrappers import unwrapped, without_layers

Spelling = Callable[[str], str]
"""How a name is spelled so that it can be compared."""


@frozen
class Matching:
    """Which name stands for which name of a file."""

    names: Mapping[str, str] = field(factory=dict)
    """Name → name in the file, for all that have a counterpart."""
    others: Mapping[str, str] = field(factory=dict)
    """Names that the file has no tensor for, though it has such tensors of other numbers → what they would be there."""
    rules: tuple[Rule, ...] = ()
    """How names that were not the same were turned into those of the file; empty where spelling was all."""
    doubts: tuple[tuple[Rule, ...], ...] = ()
    """Ways to do so between which nothing decides."""


def match(
    names: Mapping[str, Shape],
    stored: Mapping[str, Shape],
    *,
    whole: bool,
    config: Mapping[str, Any] | None = None,
) -> Matching:
    """Which names stand for names of a file, and how that is told.

    names: with the shape of each, or None where it is not known. stored: all of the file. whole: `names` are all
    tensors of a model. config: of the model, which tells what transformers renames as it loads it. Names without a
    counterpart, or with several that are equally good, are left out.
    """
    ours, theirs = _plain(names), _plain(stored)
    if ours is None or theirs is None:
        return Matching()
    ours, theirs = _without_layers(ours, theirs), _without_layers(theirs, ours)
    found = {name: ours[name] for name in ours if name in theirs}
    matched = {ours[name]: theirs[name] for name in found}
    settled = {template_of(name)[0] for name in found}
    left = {name: names[given] for name, given in ours.items() if template_of(name)[0] not in settled}
    free = {name: stored[given] for name, given in theirs.items() if name not in found}
    if not left or not free:
        return Matching(matched)
    told, here, there = _compared(left, free, whole, config or {})
    targets = {spelled: name for name, spelled in there.items()}
    others: dict[str, str] = {}
    for name, spelled in here.items():
        parts, numbers = template_of(spelled)
        moved = told.templates.get(parts)
        aim = spelled if moved is None else name_of(moved, numbers)
        if aim in targets:
            matched[ours[name]] = theirs[targets[aim]]
        elif moved is not None:
            others[ours[name]] = aim
    return Matching(matched, others, tuple(told.rules), tuple(map(tuple, told.doubts)))


def _plain(shapes: Mapping[str, Shape]) -> dict[str, str] | None:
    """Name without wrappers → the given one; None where two come to one."""
    found = unwrapped(shapes)
    return None if found.collision else {plain: name for name, plain in found.names.items()}


def _without_layers(names: dict[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """The names without what wrappers of single layers write, where the other side has them so."""
    new = {name: plain for name in names if name not in others and (plain := without_layers(name)) in others}
    if not new or len({new.get(name, name) for name in names}) < len(names):
        return names
    return {new.get(name, name): given for name, given in names.items()}


def _spellings(config: Mapping[str, Any]) -> Iterator[Spelling]:
    """Ways to spell names, the plainest first."""
    yield from (str, todays)
    from modelmerger_plugins.names.conversions import spelled_in_memory

    if (known := spelled_in_memory(config)) is not None:
        yield lambda name: todays(known(name))


def _compared(
    left: Mapping[str, Shape], free: Mapping[str, Shape], whole: bool, config: Mapping[str, Any]
) -> tuple[Found, Mapping[str, str], Mapping[str, str]]:
    """Rules between names as they are, or as they are spelled today, whichever leaves fewer names without counterpart.

    With each name → how it was spelled for that, on both sides.
    """
    best: tuple[Found, Mapping[str, str], Mapping[str, str]] | None = None
    fewest = len(left) + 1
    for spelling in _spellings(config):
        here, there = ({name: spelling(name) for name in names} for names in (left, free))
        if len(set(here.values())) < len(here) or len(set(there.values())) < len(there):
            continue
        ours = templates({spelled: left[name] for name, spelled in here.items()})
        theirs = templates({spelled: free[name] for name, spelled in there.items()})
        same = {template: theirs[template] for template in ours.keys() & theirs.keys()}
        rest = {template: value for template, value in ours.items() if template not in same}
        found = find_rules(rest, {t: value for t, value in theirs.items() if t not in same}, whole)
        missed = sum(len(value) for template, value in rest.items() if template not in found.templates)
        if missed < fewest:
            best, fewest = (found, here, there), missed
        if not missed:
            break
    return best or (Found(), {}, {})
