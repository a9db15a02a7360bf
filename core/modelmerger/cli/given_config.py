"""The config of a command: its file, read with the plugins of the command line, and the changes of `--set`."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve, frozen

from modelmerger.cli.installed import installed
from modelmerger.cli.options import Changes
from modelmerger.values.errors import ConfigError, Problem

if TYPE_CHECKING:
    from modelmerger.config.reading import GivenConfig
    from modelmerger.hooks.assembly import Hooks
    from modelmerger.hooks.registry import Registry
    from modelmerger.values.settings import Settings, ValidationSettings


@frozen(eq=False, repr=False)
class Asked:
    """What a command is to do: a config, and the plugins that it may name."""

    given: "GivenConfig"
    """The config, changed."""
    registry: "Registry"
    """The installed plugins and those of `--plugin`."""
    strict: bool
    """Whether warnings are errors."""

    def asking_for(self, **flags: bool) -> "Asked":
        """The same, with the options of these names that are asked for."""
        data = self.given.data
        options, told = data.get("options"), {name: True for name, asked in flags.items() if asked}
        if not told or not isinstance(options, dict | None):  # what else it may be is refused as it is resolved
            return self
        return evolve(self, given=evolve(self.given, data={**data, "options": {**(options or {}), **told}}))

    def resolve(self) -> tuple["Settings", "Hooks"]:
        """The settings of a merge, and its plugins. Raises `ConfigError`."""
        from modelmerger.config.resolve import resolve

        with self.given.blaming():
            return resolve(
                self.given.data, self.registry, notes=self.given.notes, strict=self.strict, file=self.given.file
            )

    def resolve_validation(self) -> tuple["Settings | None", "ValidationSettings", "Hooks", Sequence[Problem]]:
        """The settings of a merge if there is one, those of the validation, its plugins, and what is to be said.

        Raises `ConfigError`.
        """
        from modelmerger.config.resolve import resolve_validation

        with self.given.blaming():
            return resolve_validation(self.given.data, self.registry, notes=self.given.notes, strict=self.strict)


def read_changed(path: Path | None, changes: Changes) -> Asked:
    """The config in a file, or an empty one, with what the command line changes. Raises `ConfigError`."""
    from modelmerger.config.reading import GivenConfig, read_config

    registry = installed(click.get_current_context())
    if changes.files:
        from modelmerger.hooks.of_process import providers_of_file

        files = {os.path.realpath(file): file for file in reversed(changes.files)}
        registry = registry.with_given([p for file in reversed(files.values()) for p in providers_of_file(file)])
    told: dict[str, Any] = {}
    for change in changes.told:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise ConfigError(f"--read wants KEY=VALUE, got '{change}'. For example --read intent=true")
        told[key] = _value(text, f"--read {change}")
    if told and path is None:
        raise ConfigError("--read is about a config, and none is given. Leave it out")
    given = read_config(path, registry, told) if path is not None else GivenConfig({})
    data = dict(given.data)
    for change in changes.settings:
        _set(data, change)
    changed = tuple(change.partition("=")[0] for change in changes.settings)
    return Asked(evolve(given, data=data, changed=changed), registry, changes.strict)


def _set(data: dict[str, Any], change: str) -> None:
    """Sets a value of the config, and makes mappings that are missing on the way. change: `models[0].weight=0.5`."""
    key, equals, text = change.partition("=")
    *parents, last = re.findall(r"[^.\[\]]+", key) or [""]
    if not equals or not last:
        raise ConfigError(f"--set wants KEY=VALUE, got '{change}'. For example --set options.scaling_factor=0.3")
    value = _value(text, f"--set {change}")
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


def _value(text: str, where: str) -> Any:
    """The value of a text in YAML. where: what it stands in, for messages."""
    from modelmerger.config.documents.document import DocumentError, parse_document

    try:
        document = parse_document(f"value: {text}", source=where, format="yaml")
        if document.keys() != {"value"}:
            raise ConfigError(Problem("more than one value is given. Give each in an option of its own", where))
        return document["value"]
    except DocumentError as error:
        reason = re.sub(r"^line \d+, column \d+: ", "", error.problems[0].message)
        raise ConfigError(Problem(f"the value cannot be read: {reason}", where)) from error


def _index(name: str, parent: list[Any], change: str) -> int:
    if not parent:
        raise ConfigError(f"--set {change}: the list is empty, so there is no '{name}' in it")
    if not name.isdecimal() or int(name) >= len(parent):
        raise ConfigError(f"--set {change}: the list has entries 0 to {len(parent) - 1}, and not '{name}'")
    return int(name)
