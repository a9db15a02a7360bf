"""Which plugins are installed, from package metadata alone. A plugin is imported when it is first needed."""

import functools
import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import importlib_metadata
from attrs import field, frozen

from modelmerger.values.errors import ConfigError, PluginError
from modelmerger.values.text import suggestion

Kind = Literal["strategy", "validator", "executor", "plugin"]
"""What a plugin is. One that a config does not choose by its name, a "plugin", is always on."""
GROUPS: Mapping[Kind, str] = MappingProxyType(
    {
        "strategy": "modelmerger.strategies",
        "validator": "modelmerger.validators",
        "executor": "modelmerger.executors",
        "plugin": "modelmerger.plugins",
    }
)
"""The group of entry points of each kind."""
DEFAULT_VALIDATORS = "modelmerger.default_validators"
"""The group of entry points of validators whose hook `wants_validation` is asked where the config names none."""
BUILT_IN = "modelmerger"
"""The distribution of the built-in plugins."""
ALLOW = "MODELMERGER_PLUGINS"
"""The environment variable that names the only plugins of other distributions that may be used."""
DISABLE = "MODELMERGER_DISABLE_PLUGINS"
"""The environment variable that names plugins that may not be used."""
PLURALS: Mapping[Kind, str] = MappingProxyType(
    {"strategy": "strategies", "validator": "validators", "executor": "executors", "plugin": "plugins"}
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
    """The version of that distribution."""
    target: str
    """What the entry point names: a module, or an object in it after a colon."""
    _entry_point: Any = field(eq=False, repr=False)
    by_default: bool = False
    """Whether it is a validator that is asked whether it runs where the config names none."""

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' from {self.source}"

    def as_dict(self) -> dict[str, str]:
        """The provider as plain data, for the manifest."""
        return {"kind": self.kind, "name": self.name, "distribution": self.distribution, "version": self.version}

    @property
    def module(self) -> str:
        """The module that the entry point names."""
        return self.target.partition(":")[0].strip()

    @property
    def built_in(self) -> bool:
        """Whether it comes with this package."""
        return self.distribution == BUILT_IN

    @property
    def source(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}"

    def load(self) -> Any:
        """Imports the plugin. Whatever its import raises becomes a `PluginError`."""
        try:
            return self._entry_point.load()
        except (Exception, SystemExit) as error:
            raise PluginError(f"{self} could not be imported: {type(error).__name__}: {error}") from error


@frozen
class Registry:
    """The installed plugins."""

    providers: tuple[Provider, ...]
    """Those that can be used."""
    switched_off: tuple[tuple[Provider, str], ...] = ()
    """Those that are switched off, each with the reason."""

    @classmethod
    def installed(cls, environment: Mapping[str, str] = os.environ) -> "Registry":
        """Reads the metadata of every installed distribution, then applies the two environment variables.

        `MODELMERGER_DISABLE_PLUGINS=a,b` switches off plugins by their name or their distribution's.
        `MODELMERGER_PLUGINS=a,b` lets in only those that it names besides the built-in ones; if it is set and empty,
        only the built-in ones.
        """
        allowed, disabled = _names(environment, ALLOW), _names(environment, DISABLE) or frozenset()
        kept, off = [], []
        for provider in _discover():
            names = {provider.name, provider.distribution}
            if names & disabled:
                off.append((provider, f"{DISABLE} names it"))
            elif allowed is not None and not provider.built_in and not names & allowed:
                off.append((provider, f"{ALLOW} does not name it"))
            else:
                kept.append(provider)
        return cls(tuple(kept), tuple(off))

    def names(self, kind: Kind) -> list[str]:
        """The names of the plugins of a kind, sorted."""
        return sorted({provider.name for provider in self.providers if provider.kind == kind})

    def clashes(self, kind: Kind) -> dict[str, list[Provider]]:
        """Names that more than one distribution provides, with these."""
        by_name = {name: [p for p in self.providers if (p.kind, p.name) == (kind, name)] for name in self.names(kind)}
        return {name: providers for name, providers in by_name.items() if len(providers) > 1}

    def find(self, kind: Kind, name: str) -> Provider:
        """The one provider of that name. Raises `ConfigError` where there is none, or where there are two."""
        found = [provider for provider in self.providers if (provider.kind, provider.name) == (kind, name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(_clash(found))
        for provider, reason in self.switched_off:
            if (provider.kind, provider.name) == (kind, name):
                raise ConfigError(f"{provider} is switched off: {reason}.")
        known = self.names(kind)
        installed = ", ".join(known) or "none"
        near = suggestion(name, known).replace(",", ";", 1)
        raise ConfigError(f"no {kind} is named '{name}'{near} (installed: {installed})")

    def default_validators(self) -> list[Provider]:
        """The validators that are asked whether they run where the config names none."""
        return [provider for provider in self.providers if provider.kind == "validator" and provider.by_default]

    def always_on(self) -> list[Provider]:
        """The plugins of every merge, the built-in ones first. Raises `ConfigError` for two of one name."""
        if clashes := self.clashes("plugin"):
            raise ConfigError(*(_clash(providers) for providers in clashes.values()))
        return sorted((p for p in self.providers if p.kind == "plugin"), key=lambda p: (not p.built_in, p.name))


def _clash(providers: Iterable[Provider]) -> str:
    first, *others = sorted(providers, key=lambda p: (p.built_in, p.distribution))
    off = first.distribution
    sources = " and by ".join(p.source for p in (first, *others))
    return f"{first.kind} '{first.name}' is provided twice: by {sources}; uninstall one of them or set {DISABLE}={off}."


def _discover() -> list[Provider]:
    providers = {}
    installed = importlib_metadata.entry_points()
    identity = functools.cache(_identity)  # every access parses the metadata again
    defaults = {(point.name, identity(point.dist)) for point in installed.select(group=DEFAULT_VALIDATORS)}
    for kind, group in GROUPS.items():
        for point in installed.select(group=group):
            name, version = identity(point.dist)
            by_default = kind == "validator" and (point.name, (name, version)) in defaults
            provider = Provider(kind, point.name, name, version, point.value, point, by_default)
            providers[provider] = provider
    return sorted(providers, key=lambda p: (p.kind, p.name, p.distribution))


def _identity(distribution: importlib_metadata.Distribution | None) -> tuple[str, str]:
    """Name and version of a distribution."""
    return (distribution.name, distribution.version) if distribution else ("an unknown distribution", "?")


def _names(environment: Mapping[str, str], variable: str) -> frozenset[str] | None:
    if variable not in environment:
        return None
    return frozenset(name.strip() for name in environment[variable].split(",") if name.strip())
