"""Tensors that one of two models lacks, one problem for each cause."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile

from modelmerger.planning.tensor_names import layer_of
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import Problem
from modelmerger.values.text import amount, shown

ADVICE = "Merge models of one architecture, or set missing_tensors."


def name_problems(
    missing: Sequence[str], surplus: Sequence[str], first: Checkpoint, other: Checkpoint
) -> Iterator[Problem]:
    """Layers that are missing, and other tensors, each as one problem for each of the two models; or another prefix.

    missing: what the other model lacks, by its name in the first one. surplus: what the first one lacks.
    """
    if prefixes := _other_prefix(missing, surplus):
        ours, theirs = (shown(prefix or "no prefix", 40) for prefix in prefixes)
        message = (
            f"has other names for {len(missing):,} tensors than '{first.name}': {theirs} here where that has {ours} "
            f"({shown(surplus[0], 60)}). Save both models alike, or rename the tensors."
        )
        yield Problem(message, other.place)
        return
    yield from _lacking(missing, first, other, other.place)
    yield from _lacking(surplus, other, first, other.place)


def _other_prefix(missing: Sequence[str], surplus: Sequence[str]) -> tuple[str, str] | None:
    """What the names begin with in each of the two models, if that is all in which they differ."""
    if len(missing) != len(surplus) or len(missing) < 2:
        return None
    ours, theirs = _beginning(missing), _beginning(surplus)
    if {name.removeprefix(ours) for name in missing} != {name.removeprefix(theirs) for name in surplus}:
        return None
    return ours, theirs


def _beginning(names: Sequence[str]) -> str:
    """The parts that all names begin with, each with its dot."""
    parts = zip(*(name.split(".") for name in names), strict=False)
    return "".join(f"{part[0]}." for part in takewhile(lambda part: len(set(part)) == 1, parts))


def _lacking(names: Sequence[str], has: Checkpoint, lacks: Checkpoint, place: str) -> Iterator[Problem]:
    whole = _whole_layers(names, has)
    for prefix in dict.fromkeys(prefix for prefix, _ in whole):
        layers = sorted(number for of, number in whole if of == prefix)
        tensors = sum(whole[prefix, number] for number in layers)
        message = (
            f"'{has.name}' has {_listed(layers)} of {shown(prefix, 60) or 'the model'} "
            f"({amount(tensors, 'tensor')}) and '{lacks.name}' lacks {'it' if len(layers) == 1 else 'them'}. {ADVICE}"
        )
        yield Problem(message, place)
    others = [name for name in names if layer_of(name) not in whole]
    if others:
        more = f" and {amount(len(others) - 1, 'more', 'more')} that" if len(others) > 1 else " and"
        lacking = f"'{lacks.name}' lacks it" if len(others) == 1 else f"'{lacks.name}' lacks"
        yield Problem(f"'{has.name}' has this tensor{more} {lacking}. {ADVICE}", place, others[0])


def _whole_layers(names: Sequence[str], has: Checkpoint) -> dict[tuple[str, int], int]:
    """Layers of several tensors, all of which are among the names → how many those are."""
    missing = Counter(layer for name in names if (layer := layer_of(name)))
    all_of_them = Counter(layer for name in has.tensors if (layer := layer_of(name)))
    return {layer: count for layer, count in missing.items() if count == all_of_them[layer] > 1}


def _listed(numbers: Sequence[int]) -> str:
    """`layer 3`, `layers 2 to 5 and 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown_runs = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    head, last = shown_runs[:-1], shown_runs[-1]
    if len(head) > 3:
        head = [*head[:3], "…"]
    text = f"{', '.join(head)} and {last}" if head else last
    return f"{'layer' if len(numbers) == 1 else 'layers'} {text}"
