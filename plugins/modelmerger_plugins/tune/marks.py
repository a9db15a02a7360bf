"""Numbers of a config that are to be found: `{tune: [low, high], start: 0.35, per: layer}` in place of a number."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args

from attrs import evolve, frozen
from modelmerger import ConfigError, Problem

from modelmerger_plugins.tune.section import Per

KEY = "tune"
"""The section, and the key by which a mapping is known to stand for a number."""
LEAST = 1e-6
"""The smallest number that a config is written with."""
Place = tuple[str | int, ...]
_KEYS = (KEY, "start", "per")


@frozen
class Mark:
    """A number that is to be found."""

    place: Place
    """Its keys in the config, from the outermost."""
    low: float
    """The smallest value that it may have."""
    high: float
    """The largest."""
    start: float
    """Where the search begins; without it, the middle."""
    per: Per
    """What has a number of its own."""

    @property
    def where(self) -> str:
        """The key of the config: `models[0].weight`."""
        return shown_place(self.place)


def without_zero(mark: Mark) -> Mark:
    """The same mark with `LEAST` in place of a 0 that it begins or ends at."""
    low, high = mark.low or LEAST, mark.high or -LEAST
    return evolve(mark, low=low, high=high, start=mark.start or (LEAST if high > 0 else -LEAST))


def shown_place(place: Place) -> str:
    """The key of the config as messages have it."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)
    return text.lstrip(".")


def is_mark(value: Any) -> bool:
    """Whether a value of a config stands for a number that is to be found."""
    return isinstance(value, Mapping) and KEY in value


def holds_marks(config: Any) -> bool:
    """Whether a config holds something that only `modelmerger tune` understands."""
    given = isinstance(config, Mapping)
    return given and (config.get(KEY) not in (None, {}) or next(_found(config), None) is not None)


def marks_of(config: Mapping[str, Any]) -> list[Mark]:
    """The marks of a config in their order. Raises `ConfigError` with everything that is wrong with them."""
    found, problems = [], []
    for place, given in _found(config):
        wrong = _wrong(given)
        if wrong:
            problems.append(Problem(wrong, shown_place(place)))
            continue
        low, high = map(float, given[KEY])
        start = float(given.get("start", (low + high) / 2))
        found.append(Mark(place, low, high, start, cast("Per", given.get("per", "auto"))))
    if problems:
        raise ConfigError(*problems)
    return found


def with_values(config: Any, values: Mapping[Place, Any], place: Place = ()) -> Any:
    """The config with a value in place of each mark."""
    if place in values:
        return values[place]
    if isinstance(config, Mapping):
        return {key: with_values(value, values, (*place, key)) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [with_values(value, values, (*place, i)) for i, value in enumerate(config)]
    return config


def _found(config: Mapping[str, Any]) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """The marks of a config with their places, in its order, however deep it is."""
    waiting: list[tuple[Place, Any]] = [((key,), config[key]) for key in reversed(list(config)) if key != KEY]
    while waiting:
        place, value = waiting.pop()
        if is_mark(value):
            yield place, value
        elif isinstance(value, Mapping):
            waiting += [((*place, key), value[key]) for key in reversed(list(value))]
        elif isinstance(value, list | tuple):
            waiting += [((*place, i), inner) for i, inner in reversed(list(enumerate(value)))]


def _wrong(given: Mapping[str, Any]) -> str:
    """What is wrong with a mark; empty where nothing is."""
    if unknown := [key for key in given if key not in _KEYS]:
        return f"unknown key {unknown[0]!r} beside '{KEY}'. It may have {', '.join(_KEYS[1:])}"
    bounds = given[KEY]
    if not isinstance(bounds, list | tuple) or len(bounds) != 2 or not all(map(_is_number, bounds)):
        return f"'{KEY}' must be two numbers, the smallest value and the largest, got {bounds!r}"
    if not bounds[0] < bounds[1]:
        return f"'{KEY}' must be two numbers, the smaller first, got {list(bounds)}"
    start = given.get("start", bounds[0])
    if not _is_number(start) or not bounds[0] <= start <= bounds[1]:
        return f"'start' must be a number from {bounds[0]} to {bounds[1]}, got {start!r}"
    if given.get("per", "auto") not in get_args(Per):
        return f"'per' must be one of {', '.join(get_args(Per))}, got {given['per']!r}"
    return ""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
