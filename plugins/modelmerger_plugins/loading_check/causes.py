"""What is wrong with how tensors match a class: one problem for each cause, however many tensors it concerns."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import evolve, frozen
from modelmerger import Problem, amount, shown

from modelmerger_plugins.loading_check.conversions import NUMBER, Shape
from modelmerger_plugins.loading_check.loading import Loading

MOST_NAMED = 3
"""Tensors that a problem names."""
OTHERWISE = "options.check_loading: false merges all the same"


@frozen(kw_only=True)
class Causes:
    """What is to be said of an output."""

    architecture: str
    """The class."""
    place: str
    """Where the class is named."""
    donor: str
    """The name of the model whose config names it."""
    of_donor: Loading | None
    """How the donor's own tensors match; None where that is not known."""

    def problems(self, found: Loading) -> Iterator[Problem]:
        """A problem for each cause. found: how the tensors of the output match."""
        yield from self._shapes(found.misshaped)
        said, rest = _prefixes(found)
        yield from map(self._error, said)
        said, rest = _layers(rest)
        yield from map(self._error, said)
        yield from self._missing(rest)
        yield from self._unexpected(rest)

    def _shapes(self, misshaped: Mapping[str, tuple[Shape, Shape]]) -> Iterator[Problem]:
        groups: dict[object, list[str]] = {}
        for name, shapes in misshaped.items():
            groups.setdefault(_difference(*shapes), []).append(name)
        for names in groups.values():
            shape, wanted = misshaped[names[0]]
            more = f", and {amount(len(names) - 1, 'other tensor')} likewise" if len(names) > 1 else ""
            yield Problem(
                f"its shape is {list(shape)}, and {self.architecture} as config.json has it wants "
                f"{list(wanted)}{more}. Correct the config, or {OTHERWISE}.",
                self.place,
                names[0],
            )

    def _missing(self, found: Loading) -> Iterator[Problem]:
        already = set(self.of_donor.missing) if self.of_donor is not None else set()
        lost = [name for name in found.missing if name not in already]
        vital = [name for name in found.missing if name in already and name in found.vital]
        other = [name for name in found.missing if name in already and name not in found.vital]
        needs, owner = f"{self.architecture} needs", shown(self.donor)
        if lost:
            yield self._error(
                f"{needs} {amount(len(lost), 'tensor')} that the merged model lacks: {_named(lost)}. "
                f"Random numbers would take their place; {OTHERWISE}"
            )
        if vital:
            yield self._error(
                f"{needs} {amount(len(vital), 'tensor')} that the merged model lacks, and '{owner}' does too: "
                f"{_named(vital)}. Merge models that are whole; {OTHERWISE}"
            )
        if other:
            yield self._warning(
                f"{needs} {amount(len(other), 'tensor')} that the merged model lacks, and '{owner}' does too: "
                f"{_named(other)}. Random numbers take their place when it is loaded"
            )

    def _unexpected(self, found: Loading) -> Iterator[Problem]:
        already = set(self.of_donor.unexpected.values()) if self.of_donor is not None else set()
        added = [name for name in found.unexpected.values() if name not in already]
        old = [name for name in found.unexpected.values() if name in already]
        has, owner = f"{self.architecture} has no place for", shown(self.donor)
        if added:
            yield self._error(
                f"{has} {amount(len(added), 'tensor')} of the merged model: {_named(added)}. "
                f"Leave them out, or {OTHERWISE}"
            )
        if old:
            yield self._warning(
                f"{has} {amount(len(old), 'tensor')} of the merged model, which '{owner}' has too: {_named(old)}"
            )

    def _error(self, sentence: str) -> Problem:
        return Problem(f"{sentence}.", self.place)

    def _warning(self, sentence: str) -> Problem:
        return Problem(f"{sentence}.", self.place, severity="warning")


def _difference(shape: Shape, wanted: Shape) -> object:
    """What tells two shapes apart: the first numbers that differ, or all, where there are not as many."""
    if len(shape) != len(wanted):
        return shape, wanted
    return next((one, other) for one, other in zip(shape, wanted, strict=True) if one != other)


def _prefixes(found: Loading) -> tuple[list[str], Loading]:
    """A sentence where most tensors have a prefix that the class has not, or the other way round; and all the rest."""
    missing, unexpected = set(found.missing), set(found.unexpected)
    for many, few in ((unexpected, missing), (missing, unexpected)):
        pairs = {name: tail for name in many if (tail := _tail(name, few)) is not None}
        prefixes = Counter(name.removesuffix(tail) for name, tail in pairs.items())
        if not pairs or 2 * max(prefixes.values()) <= len(few):
            continue
        ((prefix, count),) = prefixes.most_common(1)
        alike = {name: tail for name, tail in pairs.items() if name.removesuffix(tail) == prefix}
        explained = {*alike, *alike.values()}
        if not explained & found.vital:
            continue
        longer = min(alike)
        written, wanted = (longer, alike[longer]) if many is unexpected else (alike[longer], longer)
        sentence = (
            f"{amount(count, 'tensor')} would be loaded {'without' if many is unexpected else 'with'} the prefix "
            f"'{prefix}': '{written}' is written, and '{wanted}' is loaded. Rename the tensors of the models"
        )
        rest = evolve(
            found,
            missing=[name for name in found.missing if name not in explained],
            unexpected={place: name for place, name in found.unexpected.items() if place not in explained},
        )
        return [sentence], rest
    return [], found


def _tail(name: str, among: set[str]) -> str | None:
    """The longest end of a name, after a dot, that is among these."""
    while "." in name:
        name = name.partition(".")[2]
        if name in among:
            return name
    return None


def _layers(found: Loading) -> tuple[list[str], Loading]:
    """A sentence for each stack whose config says another number of layers than there are; and all the rest."""
    wanted, unexpected = _by_layer(found.places), _by_layer(found.unexpected)
    missing = _by_layer(found.missing)
    sentences: list[str] = []
    explained: set[str] = set()
    for stack in sorted(found.stacks & wanted.keys()):
        layers = wanted[stack]
        lacking = {number: names for number, names in missing.get(stack, {}).items() if names == layers[number]}
        further = {number: names for number, names in unexpected.get(stack, {}).items() if number not in layers}
        for numbers, what in ((lacking, "lack {}"), (further, "have {} as well")):
            if numbers:
                sentences.append(
                    f"config.json makes {amount(len(layers), 'layer')} of '{stack}', "
                    f"and the weights {what.format(_span(sorted(numbers)))}. "
                    f"Correct the config, or merge models that are whole"
                )
                explained |= {name for names in numbers.values() for name in names}
    rest = evolve(
        found,
        missing=[name for name in found.missing if name not in explained],
        unexpected={place: name for place, name in found.unexpected.items() if place not in explained},
    )
    return sentences, rest


def _by_layer(names: Iterable[str]) -> dict[str, dict[int, set[str]]]:
    """Stack of layers, the part of a name before its first number, → layer → names."""
    stacks: dict[str, dict[int, set[str]]] = {}
    for name in names:
        if (number := NUMBER.search(name)) is not None and number.start() > 0:
            layers = stacks.setdefault(name[: number.start() - 1], {})
            layers.setdefault(int(number[0]), set()).add(name)
    return stacks


def _span(numbers: Sequence[int]) -> str:
    return f"layer {numbers[0]}" if len(numbers) == 1 else f"layers {numbers[0]} to {numbers[-1]}"


def _named(names: Sequence[str]) -> str:
    """Names that stand for all, one of each layer and expert."""
    kinds = list({NUMBER.sub("#", name): name for name in reversed(names)}.values())[::-1]
    shortened = ", ".join(f"'{shown(name, 60)}'" for name in kinds[: MOST_NAMED - (len(kinds) > MOST_NAMED)])
    return f"{shortened}, …" if len(kinds) > MOST_NAMED or len(names) > len(kinds) else shortened
