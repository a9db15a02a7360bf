"""The config of a command: its file, and what `--set` changes in it."""

import re
from pathlib import Path
from typing import Any

from modelmerger.values.errors import ConfigError, Problem


def read_changed(path: Path | None, changes: tuple[str, ...]) -> dict[str, Any]:
    """The config in a file, or an empty one, with the changes that `--set` asks for. Raises `ConfigError`."""
    from modelmerger.config.documents.document import read_document

    data = read_document(path) if path is not None else {}
    for change in changes:
        _set(data, change)
    return data


def _set(data: dict[str, Any], change: str) -> None:
    """`models[0].weight=0.5`: walks to the place, which must exist up to its last key, and puts the value, read as YAML."""
    from modelmerger.config.documents.document import DocumentError, parse_document

    key, equals, text = change.partition("=")
    steps = re.findall(r"[^.\[\]]+", key)
    if not equals or not steps:
        raise ConfigError(f"--set wants KEY=VALUE, got '{change}'. For example --set options.scaling_factor=0.3")
    try:
        value = parse_document(f"value: {text}", source="--set", format="yaml")["value"]
    except DocumentError as error:
        reason = re.sub(r"^line \d+, column \d+: ", "", error.problems[0].message)
        raise ConfigError(Problem(f"the value cannot be read: {reason}", f"--set {change}")) from error
    place: Any = data
    for step in steps[:-1]:
        if isinstance(place, list):
            place = place[_number(step, place, change)]
        else:
            place = place.setdefault(step, {}) if isinstance(place, dict) else place
        if not isinstance(place, dict | list):
            raise ConfigError(f"--set {change}: '{step}' is no mapping or list in the config")
    if isinstance(place, list):
        place[_number(steps[-1], place, change)] = value
    else:
        place[steps[-1]] = value


def _number(step: str, place: list[Any], change: str) -> int:
    if not place:
        raise ConfigError(f"--set {change}: the list is empty, so there is no '{step}' in it")
    if not step.isdecimal() or int(step) >= len(place):
        raise ConfigError(f"--set {change}: the list has entries 0 to {len(place) - 1}, and not '{step}'")
    return int(step)
