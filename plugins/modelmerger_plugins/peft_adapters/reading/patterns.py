r"""`rank_pattern` and `alpha_pattern`: what a config says of some modules, by regular expressions from a stranger.

PEFT takes the first pattern that `re.match(rf"(.*\.)?({pattern})$", module)` finds. Most are names of modules, and some
adapters have thousands of them: those are looked up. The others are matched in time that their lengths bound.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen
from modelmerger import InputError, Problem, amount, shown

from modelmerger_plugins.peft_adapters.reading.expressions import (
    ADMITTED,
    Choice,
    Name,
    UnadmittedError,
    matches,
    parsed,
)
from modelmerger_plugins.peft_adapters.reading.modules import endings

MOST = 100_000
"""The most patterns of an adapter."""
MOST_CHARACTERS = 30_000
"""The most characters of those that are no names."""
LONGEST_NAME = 500
"""The most characters of a module's name that patterns are tried on."""
MOST_EFFORT = 3_000_000
"""The most that patterns may cost on all modules together: characters of patterns times modules."""
_NAME = re.compile(r"(\^?)((?:[\w-]|\\?\.|\\-)+)\$?")
_ESCAPED = re.compile(r"\\(.)")

Form = tuple[bool, tuple[int, ...]]
"""Of a name among the patterns: whether it is a module's whole name, and where it has dots, which fit any character."""


@frozen(eq=False)
class Patterns:
    """The patterns of one field, each of which was looked through by `problems_in`."""

    values: Mapping[str, Any]
    """Pattern → what it gives a module."""
    _given: tuple[Any, ...] = field(init=False, repr=False)
    """The same, by number of the pattern."""
    _names: Mapping[int, Mapping[Form, Mapping[str, int]]] = field(init=False, repr=False)
    """Of the patterns that are names: length → form → name → number of the pattern."""
    _others: Mapping[int, Choice] = field(init=False, repr=False)
    """Number of a pattern → the pattern, of those that are no names."""
    effort: int = field(init=False)
    """What it costs to try them on a module, in characters of patterns."""

    @_given.default
    def _by_number(self) -> tuple[Any, ...]:
        return tuple(self.values.values())

    @_names.default
    def _by_form(self) -> Mapping[int, Mapping[Form, Mapping[str, int]]]:
        names: dict[int, dict[Form, dict[str, int]]] = {}
        for number, pattern in enumerate(self.values):
            if match := _NAME.fullmatch(pattern):
                name = _ESCAPED.sub(r"\1", match[2])
                unescaped = _ESCAPED.sub("_", match[2])
                form = bool(match[1]), tuple(i for i, character in enumerate(unescaped) if character == ".")
                names.setdefault(len(name), {}).setdefault(form, {}).setdefault(name, number)
        return names

    @_others.default
    def _expressions(self) -> Mapping[int, Choice]:
        return {i: parsed(pattern) for i, pattern in enumerate(self.values) if not _NAME.fullmatch(pattern)}

    @effort.default
    def _effort(self) -> int:
        patterns = list(self.values)
        return sum(len(patterns[i]) for i in self._others) + 8 * max(map(len, self._names.values()), default=0)

    def of(self, module: str, default: Any) -> Any:
        """What the first pattern gives that fits the end of the module's name; `default` where none does."""
        first = min(self._named(module), default=len(self._given))
        if self._others:
            name = Name(module)
            fitting = (number for number, pattern in self._others.items() if number > first or matches(pattern, name))
            first = min(first, next(fitting, first))
        return self._given[first] if first < len(self._given) else default

    def _named(self, module: str) -> Iterator[int]:
        """The patterns that are names and fit."""
        for end in endings(module):
            for (whole, dots), names in self._names.get(len(end), {}).items():
                if (number := names.get(_dotted(end, dots))) is not None and not (whole and end != module):
                    yield number


def problems_in(name: str, patterns: Any, path: str) -> Iterator[Problem]:
    """What stands against a field of a config. `name`: of the field. `path`: of the config's file."""
    if not isinstance(patterns, dict | None):
        yield Problem(f"has {name} {shown(patterns)}, where a mapping is due.", path)
        return
    patterns = patterns or {}
    if len(patterns) > MOST:
        yield Problem(f"has {len(patterns)} patterns in {name}, and at most {MOST} are read.", path)
        return
    length = sum(len(pattern) for pattern in patterns if not _NAME.fullmatch(pattern))
    if length > MOST_CHARACTERS:
        message = f"has patterns of {length} characters in {name} that are no names, and at most {MOST_CHARACTERS} are"
        yield Problem(f"{message} read. Name the modules.", path)
        return
    for pattern, value in patterns.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield Problem(f"has {shown(value)} for {shown(pattern)} in {name}, where a number is due.", path)
            break
    if refused := [pattern for pattern in patterns if not _is_admitted(pattern)]:
        more = f" (and {amount(len(refused) - 1, 'more such pattern')})" if len(refused) > 1 else ""
        message = f"has {shown(refused[0], 60)!r} in {name}{more}, and only {ADMITTED} are tried. Name the modules."
        yield Problem(message, path)


def check_effort(name: str, patterns: Patterns, modules: int, path: str) -> None:
    """Raises `InputError` where it would take too long to try the patterns on so many modules."""
    if patterns.effort * modules > MOST_EFFORT:
        message = (
            f"has patterns in {name} that would take very long for its {modules} modules. "
            r"Name the modules, with '\.' for each dot."
        )
        raise InputError(Problem(message, path))


def check_module(module: str, path: str) -> None:
    """Raises `InputError` for a module with a name that is too long to try patterns on."""
    if len(module) > LONGEST_NAME:
        message = (
            f"has patterns for ranks or alphas, and the module {shown(module, 60)} has a name of {len(module)} "
            f"characters, where {LONGEST_NAME} at most are due. Leave the patterns out."
        )
        raise InputError(Problem(message, path))


def _is_admitted(pattern: str) -> bool:
    if _NAME.fullmatch(pattern):
        return len(pattern) <= 2 * LONGEST_NAME
    try:
        parsed(pattern)
    except UnadmittedError:
        return False
    return True


def _dotted(text: str, dots: tuple[int, ...]) -> str:
    """The text with dots at these places."""
    characters = list(text)
    for place in dots:
        characters[place] = "."
    return "".join(characters)
