"""The config of a command: its file, with the changes of `--set`."""

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
    """Sets a value of the config, and makes mappings that are missing on the way. change: `models[0].weight=0.5`."""
    from modelmerger.config.documents.document import DocumentError, parse_document

    key, equals, text = change.partition("=")
    *parents, last = re.findall(r"[^.\[\]]+", key) or [""]
    if not equals or not last:
        raise ConfigError(f"--set wants KEY=VALUE, got '{change}'. For example --set options.scaling_factor=0.3")
    try:
        value = parse_document(f"value: {text}", source="--set", format="yaml")["value"]
    except DocumentError as error:
        reason = re.sub(r"^line \d+, column \d+: ", "", error.problems[0].message)
        raise ConfigError(Problem(f"the value cannot be read: {reason}", f"--set {change}")) from error
    parent: Any = data
    for name in parents:
        if isinstance(parent, list):
            parent = parent[_index(name, parent, change)]
        else:
            parent = parent.setdefault(name, {}) if isinstance(parent, dict) else parent
        if not isinstance(parent, dict | list):
            raise ConfigError(f"--set {change}: '{name}' is not a mapping or list in the config")
    if isinstance(parent, list):
        parent[_index(last, parent, change)] = value
    else:
        parent[last] = value


def _index(name: str, parent: list[Any], change: str) -> int:
    if not parent:
        raise ConfigError(f"--set {change}: the list is empty, so there is no '{name}' in it")
    if not name.isdecimal() or int(name) >= len(parent):
        raise ConfigError(f"--set {change}: the list has entries 0 to {len(parent) - 1}, and not '{name}'")
    return int(name)
