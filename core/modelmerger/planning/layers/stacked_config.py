"""The config of a model whose layers are those of others: how many there are, and what is said of each of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from modelmerger.planning.layers.layer_keys import (
    BEFORE,
    BEHIND,
    COUNTS,
    FROM_ZERO,
    IMPLIED,
    IN_ONE_MATRIX,
    INDICES,
    LISTS,
    OFFSETS,
    PERIODS,
    WHOLE,
    WORDS,
)
from modelmerger.values.errors import InputError, Problem

Config = Mapping[str, Any]
Part = tuple[Config, Iterable[int]]
"""The config of a model, and which of its layers are taken, in their order."""
Taken = Sequence[tuple[Config, tuple[int, ...]]]


def stacked_config(config: Config, parts: Sequence[Part], place: str) -> dict[str, Any]:
    """`config` as it is for the layers of the parts, one on another; also in that of its text model.

    Lists by layer are cut, repeated and put in order; what says every n-th layer, or all before one, stays where it is
    still true, and is written out as a list where the architecture has one. place: for messages. Raises `InputError`
    where the config cannot say it.
    """
    taken = [(of_part, tuple(layers)) for of_part, layers in parts]
    changed: dict[str, Any] = {}
    inner = config.get("text_config")
    if isinstance(inner, Mapping) and any(key in inner for key in COUNTS):
        of_text = [(p["text_config"] if isinstance(p.get("text_config"), Mapping) else p, ls) for p, ls in taken]
        changed["text_config"] = stacked_config(inner, of_text, place)
    counts = [key for key in COUNTS if key in config] or ([] if changed else [COUNTS[0]])
    changed |= dict.fromkeys(counts, sum(len(layers) for _, layers in taken))
    if not counts:
        return {**config, **changed}
    for key in (*LISTS, *WORDS):
        if isinstance(config.get(key), str if key in WORDS else list):
            changed[key] = _joined(key, taken, place)
    for key in INDICES:
        if isinstance(config.get(key), list):
            changed[key] = [i for i, flag in enumerate(_flags(taken, partial(_is_listed, key))) if flag]
    changed |= _periods(config, taken, changed, place)
    changed |= _thresholds(config, taken, changed, place)
    return {**config, **changed}


def _joined(key: str, taken: Taken, place: str) -> Any:
    """The entries of all layers, as a list or a text. Raises `InputError` where a model does not have one for each."""
    kind = str if key in WORDS else list
    if not all(isinstance(p.get(key), kind) and len(p[key]) > max(layers, default=-1) for p, layers in taken):
        message = f"'{key}' has no entry for each of the layers that are taken. Mend it"
        raise InputError(Problem(message, f"{place}/config.json"))
    entries = [of_part[key][layer] for of_part, layers in taken for layer in layers]
    return "".join(entries) if kind is str else entries


def _flags(taken: Taken, is_of_kind: Callable[[Config, int], bool]) -> list[bool]:
    return [is_of_kind(of_part, layer) for of_part, layers in taken for layer in layers]


def _is_listed(key: str, config: Config, layer: int) -> bool:
    return layer in (config.get(key) or ())


def _is_nth(key: str, default: int, shift: int, config: Config, layer: int) -> bool:
    return (layer + shift) % int(config.get(key) or default) == 0


def _is_nth_from(key: str, offset: str, config: Config, layer: int) -> bool:
    return layer % int(config.get(key) or 1) == config.get(offset)


def _is_before(key: str, config: Config, layer: int) -> bool:
    return layer < int(config.get(key) or 0)


def _periods(config: Config, taken: Taken, changed: Config, place: str) -> dict[str, Any]:
    """What holds for every n-th layer: as it is where that is still true, else as a list."""
    found: dict[str, Any] = {}
    implied = IMPLIED.get(str(config.get("model_type")))
    for key, listed in PERIODS.items():
        if key not in config and (implied is None or implied[0] != key):
            continue
        number = config.get(key, implied[1] if implied is not None else None)
        told = listed is not None and listed[0] in changed
        if told or not isinstance(number, int) or isinstance(number, bool) or number < 1:
            continue
        shift = 0 if key in FROM_ZERO else 1
        flags = _flags(taken, partial(_is_nth, key, number, shift))
        if flags == [(i + shift) % number == 0 for i in range(len(flags))]:
            continue
        if listed is None:
            raise InputError(_unsayable(key, place))
        found[listed[0]] = [listed[1] if flag else listed[2] for flag in flags]
    for key, other in OFFSETS.items():
        number, offset = config.get(key), config.get(other)
        if isinstance(number, int) and isinstance(offset, int):
            flags = _flags(taken, partial(_is_nth_from, key, other))
            if flags != [i % number == offset for i in range(len(flags))]:
                raise InputError(_unsayable(key, place))
    return found


def _thresholds(config: Config, taken: Taken, changed: Config, place: str) -> dict[str, Any]:
    """What holds before a layer, from one on, or for the last ones: with another number where one says it."""
    found: dict[str, Any] = {}
    for key in (*BEFORE, *BEHIND):
        number = config.get(key)
        if not isinstance(number, int) or isinstance(number, bool):
            continue
        flags = _flags(taken, partial(_is_before, key))
        first = sum(flags)
        if flags != [i < first for i in range(len(flags))]:
            if key in BEHIND and ("layer_types" in changed or not config.get("use_sliding_window")):
                continue
            raise InputError(_unsayable(key, place))
        found[key] = number if first == len(flags) and number >= first else first
    for key in WHOLE:
        if isinstance(number := config.get(key), int) and number:
            counts = [p.get(COUNTS[0]) or 0 for p, _ in taken]
            whole = all(ls == tuple(range(count)) for (_, ls), count in zip(taken, counts, strict=True))
            if len(taken) != 1 or not whole:
                raise InputError(_unsayable(key, place))
    return found


def _unsayable(key: str, place: str) -> Problem:
    if key == IN_ONE_MATRIX:
        message = f"'{key}' says that each layer has a part of one matrix, which goes with these layers alone. Take all"
        return Problem(message, f"{place}/config.json")
    message = f"'{key}' says which layers are of a kind, and no number says it of these layers. Take others"
    return Problem(message, f"{place}/config.json")
