"""Which number a tensor has, where the config gives a list over the layers or a mapping from patterns on names.

The layer is the first number among the components of a name, so an expert is not a layer. Layers are counted for each
prefix before that number, so those of an encoder and of a decoder are counted apart.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from fnmatch import translate
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from modelmerger.planning.tensor_names import layer_of, precedes_layers
from modelmerger.values.errors import Problem
from modelmerger.values.text import amount, shown
from modelmerger.values.weights import DEFAULT, Numbers, Weight

if TYPE_CHECKING:
    from fractions import Fraction

NOT_TIED: Mapping[str, str] = MappingProxyType({})
"""No tensor has the numbers of another."""
Given = tuple[str, Weight]
"""A key of the config (`models[0].weight`), and the numbers there."""


def numbers_by_tensor(
    given: Sequence[Given],
    names: Sequence[str],
    merged: Sequence[str],
    tied: Mapping[str, str] = NOT_TIED,
    *,
    lenient: bool = False,
) -> tuple[dict[str, tuple[float, ...]], list[Problem]]:
    """The numbers of each merged tensor, one for each key that is given, and problems with patterns.

    names: all tensors of the output. merged: those of them that have numbers. tied: those that have the numbers of
    another tensor, by name. Errors: a pattern that matches no tensor, which is a warning if `lenient`; a merged tensor
    that no pattern matches where there is no default (its number is then 1). A pattern without effect is a warning.
    """
    copies = {name: other for name, other in tied.items() if name in merged and other in merged}
    found, problems = _own_numbers(given, names, [name for name in merged if name not in copies], lenient=lenient)
    return found | {name: found[other] for name, other in copies.items()}, problems


def _own_numbers(
    given: Sequence[Given], names: Sequence[str], merged: Sequence[str], *, lenient: bool
) -> tuple[dict[str, tuple[float, ...]], list[Problem]]:
    numbers = [weight for _, weight in given if isinstance(weight, float)]
    if len(numbers) == len(given):
        return dict.fromkeys(merged, tuple(numbers)), []
    depth = depths(names)
    problems: list[Problem] = []
    columns = []
    for where, weight in given:
        if isinstance(weight, dict):
            matchers = {pattern: re.compile(translate(pattern)).match for pattern in weight if pattern != DEFAULT}
            chosen = {name: next((p for p, match in matchers.items() if match(name)), DEFAULT) for name in merged}
            problems += _pattern_problems(matchers, chosen, names, DEFAULT in weight, where, lenient=lenient)
            columns.append([number_at(weight.get(chosen[name], 1.0), depth[name]) for name in merged])
        else:
            columns.append([number_at(weight, depth[name]) for name in merged])
    return dict(zip(merged, zip(*columns, strict=True), strict=True)), problems


def depths(names: Iterable[str]) -> "dict[str, Fraction]":
    """How deep each tensor lies: 0 before the layers and in the first layer, 1 in the last layer and behind the layers.

    The layers of a prefix are evenly spaced; a single layer is at 0.
    """
    from fractions import Fraction  # which few merges need

    layers = {name: layer_of(name) for name in names}
    numbers: dict[str, set[int]] = {}
    for layer in layers.values():
        if layer is not None:
            numbers.setdefault(layer[0], set()).add(layer[1])
    found = {
        (prefix, number): Fraction(index, max(1, len(of_prefix) - 1))
        for prefix, of_prefix in numbers.items()
        for index, number in enumerate(sorted(of_prefix))
    }
    return {name: found[layer] if layer else Fraction(not precedes_layers(name)) for name, layer in layers.items()}


@lru_cache(maxsize=1 << 12)
def number_at(numbers: Numbers, depth: "Fraction") -> float:
    """The number at a depth from 0 to 1: linear between two neighbours in the list, computed exactly, rounded once."""
    if not isinstance(numbers, tuple):
        return numbers
    position = depth * (len(numbers) - 1)
    below = int(position)
    if (share := position - below) == 0:
        return numbers[below]
    from fractions import Fraction

    return float((1 - share) * Fraction(numbers[below]) + share * Fraction(numbers[below + 1]))


def _pattern_problems(
    matchers: Mapping[str, Callable[[str], object]],
    chosen: Mapping[str, str],
    names: Collection[str],
    has_default: bool,
    where: str,
    *,
    lenient: bool,
) -> Iterable[Problem]:
    """Problems with patterns. chosen: tensor → the pattern that decides its number, or the default."""
    deciding = set(chosen.values())
    for pattern in (p for p in matchers if p not in deciding):
        if any(map(matchers[pattern], names)):
            message = "has no effect: all its tensors match an earlier one, or have no weight of their own."
            yield Problem(f"the pattern '{shown(pattern, 80)}' {message}", where, severity="warning")
        else:
            message = f"the pattern '{shown(pattern, 80)}' matches no tensor.{_closest(pattern, names)}"
            yield Problem(message, where, severity="warning" if lenient else "error")
    if not has_default and (unmatched := [name for name, pattern in chosen.items() if pattern == DEFAULT]):
        others = f", nor {amount(len(unmatched) - 1, 'other tensor')}" if unmatched[1:] else ""
        yield Problem(f"no pattern matches it{others}. Add one, or '{DEFAULT}'.", where, unmatched[0])


def _closest(pattern: str, names: Iterable[str]) -> str:
    """A sentence that names the tensor whose name has most of the pattern in it, in order.

    Of names that differ in numbers alone, it is the first.
    """
    wanted = re.sub(r"[*?\[\]0-9]", "", pattern)[:200]
    alike: dict[str, str] = {}
    for name in names:
        alike.setdefault(re.sub("[0-9]", "", name)[:200], name)

    def likeness(text: str) -> tuple[int, int]:
        blocks = SequenceMatcher(None, wanted, text, autojunk=False).get_matching_blocks()
        return sum(block.size for block in blocks), -len(text)

    closest = max(islice(alike, 1000), key=likeness, default=None)
    return "" if closest is None else f" The closest is {shown(alike[closest], 100)}."
