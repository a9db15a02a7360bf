"""The entry points of plugins, as package metadata has them. A plugin is imported when it is first needed."""

import functools
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import importlib_metadata
from attrs import field, frozen

from modelmerger.hooks.interruptions import is_interruption
from modelmerger.inputs.installed.versions import name_and_version
from modelmerger.values.errors import PluginError
from modelmerger.values.text import said_by

Kind = Literal["strategy", "validator", "executor", "plugin", "reader", "command"]
"""What a plugin is. One that nobody chooses by its name, a "plugin", is always on; readers are asked about each config
file."""
GROUPS: Mapping[Kind, str] = MappingProxyType(
    {
        "strategy": "modelmerger.strategies",
        "validator": "modelmerger.validators",
        "executor": "modelmerger.executors",
        "plugin": "modelmerger.plugins",
        "reader": "modelmerger.config_readers",
        "command": "modelmerger.commands",
    }
)
"""The group of entry points of each kind."""
DEFAULT_VALIDATORS = "modelmerger.default_validators"
"""The group of entry points of validators whose hook `wants_validation` is asked where the config names none."""
BUILT_IN = "modelmerger"
"""The distribution of the built-in plugins."""
_OUR_PACKAGES = (BUILT_IN, *(f"{BUILT_IN}_{part}" for part in ("plugins", "strategies", "validators")))
OF_PROCESS = "this process"
"""In place of a distribution for plugins that are not installed, and were handed over as a file or an object."""
DISABLE = "MODELMERGER_DISABLE_PLUGINS"
"""The environment variable that names plugins that may not be used."""
PLURALS: Mapping[Kind, str] = MappingProxyType(
    {
        "strategy": "strategies",
        "validator": "validators",
        "executor": "executors",
        "plugin": "plugins",
        "reader": "config readers",
        "command": "commands",
    }
)
"""The plural of each kind."""


@frozen
class Provider:
    """An entry point: what a plugin is called, which distribution provides it, and how to import it."""

    kind: Kind
    """What the plugin is."""
    name: str
    """Its name, as in the config."""
    distribution: str
    """The name of the distribution that provides it."""
    version: str
    """The version of that distribution; of a plugin that is not installed, its file or module."""
    target: str
    """What the entry point names: a module, or an object in it after a colon."""
    _entry_point: Any = field(eq=False, repr=False)
    by_default: bool = False
    """Whether it is a validator that is asked whether it runs where the config names none."""
    roles: frozenset[Kind] = frozenset()
    """All that its distribution declares its module to be."""
    digest: str = ""
    """The BLAKE3 digest of a plugin that is not installed; empty for others."""

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' from {self.source}"

    def as_dict(self) -> dict[str, str]:
        """The provider as plain data, for the manifest."""
        known = {"kind": self.kind, "name": self.name, "distribution": self.distribution}
        return known | ({"digest": self.digest} if self.digest else {"version": self.version})

    @property
    def identity(self) -> str:
        """What tells it from another one in the digest of a plan."""
        return f"{self.kind} '{self.name}' {self.digest}" if self.digest else str(self)

    @property
    def module(self) -> str:
        """The module that the entry point names."""
        return self.target.partition(":")[0].strip()

    @property
    def shipped(self) -> frozenset[str]:
        """The top-level modules and packages that its distribution lists as its files; none where that is damaged."""
        try:
            files = getattr(getattr(self._entry_point, "dist", None), "files", None) or ()
        except (OSError, TypeError, ValueError):
            return frozenset()
        return frozenset(file.parts[0].partition(".")[0] for file in files if file.suffix == ".py")

    @property
    def built_in(self) -> bool:
        """Whether it comes with this package."""
        return self.distribution == BUILT_IN

    @property
    def source(self) -> str:
        """Distribution and version, for messages; of a plugin that is not installed, what it was handed over as."""
        if self.digest:
            return f"{self.distribution} ({self.version}, blake3 {self.digest[:12]})"
        return f"{self.distribution} {self.version}"

    @property
    def way_out(self) -> str:
        """A sentence for errors about a plugin that takes part in every merge: how to do without it."""
        installed_by_others = self.kind == "plugin" and not self.built_in and not self.digest
        return f" {DISABLE}={self.name} switches it off." if installed_by_others else ""

    def load(self) -> Any:
        """Imports the plugin. Whatever its import raises becomes a `PluginError`."""
        try:
            return self._entry_point.load()
        except BaseException as error:
            if is_interruption(error):
                raise
            raise PluginError(f"{self} could not be imported: {type(error).__name__}: {said_by(error)}") from error


def is_ours(kind: type) -> bool:
    """Whether a class comes with this package."""
    return kind.__module__.partition(".")[0] in _OUR_PACKAGES


def discover() -> tuple[Sequence[Provider], Sequence[Provider]]:
    """The installed plugins, and those validators that are declared as default ones alone.

    Metadata is read again where a folder of the import path has other entries than before, as after an installation.
    """
    places = [os.path.abspath(place) for place in sys.path]
    return _discovered(tuple((place, _changed(place)) for place in places), tuple(map(id, sys.meta_path)))


def _changed(place: str) -> int | None:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return None


@functools.lru_cache(maxsize=4)
def _discovered(
    _places: tuple[tuple[str, int | None], ...], _finders: tuple[int, ...]
) -> tuple[Sequence[Provider], Sequence[Provider]]:
    """The import path, and who finds distributions on it: all that is found depends on them."""
    installed = importlib_metadata.entry_points()
    identity = functools.cache(_identity)
    roles: dict[tuple[str, tuple[str, str]], frozenset[Kind]] = {}
    points: dict[tuple[Kind, str, str, tuple[str, str]], Any] = {}
    for kind, group in GROUPS.items():
        for point in installed.select(group=group):
            key = point.value, identity(point.dist)
            roles[key] = roles.get(key, frozenset()) | {kind}
            points[kind, point.name, *key] = point
    defaults = {(point.name, identity(point.dist)): point for point in installed.select(group=DEFAULT_VALIDATORS)}
    found = []
    for (kind, name, target, distribution), point in points.items():
        by_default = kind == "validator" and (name, distribution) in defaults
        found.append(Provider(kind, name, *distribution, target, point, by_default, roles[target, distribution]))
    validators = {(p.name, (p.distribution, p.version)) for p in found if p.kind == "validator"}
    alone = [
        Provider("validator", name, *distribution, point.value, point, True)
        for (name, distribution), point in defaults.items()
        if (name, distribution) not in validators
    ]
    return tuple(sorted(found, key=lambda p: (p.kind, p.name, p.distribution))), tuple(alone)


def _identity(distribution: importlib_metadata.Distribution | None) -> tuple[str, str]:
    """Name and version of a distribution."""
    if distribution is None:
        return "an unknown distribution", "?"
    return name_and_version(distribution)
