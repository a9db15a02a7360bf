"""Which plugins are installed, read from package metadata alone. Nothing is imported until it is asked for by name."""

import functools
import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import importlib_metadata
from attrs import field, frozen

from modelmerger.values.errors import ConfigError, PluginError
from modelmerger.values.text import suggestion

Kind = Literal["strategy", "validator", "plugin"]
GROUPS: Mapping[Kind, str] = MappingProxyType(
    {"strategy": "modelmerger.strategies", "validator": "modelmerger.validators", "plugin": "modelmerger.plugins"}
)
DEFAULT_VALIDATORS = "modelmerger.default_validators"
"""The group of entry points of validators that may run where the config names none: their hook `wants_validation` is asked."""
BUILT_IN = "modelmerger"
ALLOW = "MODELMERGER_PLUGINS"
DISABLE = "MODELMERGER_DISABLE_PLUGINS"
PLURALS: Mapping[Kind, str] = MappingProxyType(
    {"strategy": "strategies", "validator": "validators", "plugin": "plugins"}
)


@frozen
class Provider:
    """An entry point: a plugin's kind and name, the distribution that brings it, and how to import it."""

    kind: Kind
    name: str
    distribution: str
    version: str
    target: str
    _entry_point: Any = field(eq=False, repr=False)
    by_default: bool = False
    """Whether it is asked if it runs where the config does not name it."""

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' from {self.source}"

    def as_dict(self) -> dict[str, str]:
        """What the manifest says of it."""
        return {"kind": self.kind, "name": self.name, "distribution": self.distribution, "version": self.version}

    @property
    def module(self) -> str:
        """The module that the entry point names."""
        return self.target.partition(":")[0].strip()

    @property
    def built_in(self) -> bool:
        return self.distribution == BUILT_IN

    @property
    def source(self) -> str:
        return f"{self.distribution} {self.version}"

    def load(self) -> Any:
        """Imports the plugin. Whatever its import raises becomes a `PluginError` that names plugin and distribution."""
        try:
            return self._entry_point.load()
        except (Exception, SystemExit) as error:
            raise PluginError(f"{self} could not be imported: {type(error).__name__}: {error}") from error


@frozen
class Registry:
    """What is installed and not switched off. `switched_off` says why a name cannot be had."""

    providers: tuple[Provider, ...]
    switched_off: tuple[tuple[Provider, str], ...] = ()

    @classmethod
    def installed(cls, environment: Mapping[str, str] = os.environ) -> "Registry":
        """Reads the metadata of every installed distribution, then applies the two environment variables.

        `MODELMERGER_DISABLE_PLUGINS=a,b` switches off what is named, by plugin or by distribution. `MODELMERGER_PLUGINS=a,b`
        lets in, besides the built-ins, only what it names; set and empty, the built-ins alone.
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
        return sorted({provider.name for provider in self.providers if provider.kind == kind})

    def clashes(self, kind: Kind) -> dict[str, list[Provider]]:
        """Names that more than one distribution provides."""
        by_name = {name: [p for p in self.providers if (p.kind, p.name) == (kind, name)] for name in self.names(kind)}
        return {name: providers for name, providers in by_name.items() if len(providers) > 1}

    def find(self, kind: Kind, name: str) -> Provider:
        """The one provider of that name. Nobody, or two: `ConfigError`."""
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
        """The validators that are asked whether they run, where the config names none."""
        return [provider for provider in self.providers if provider.kind == "validator" and provider.by_default]

    def always_on(self) -> list[Provider]:
        """The plugins of every merge. Two of one name: `ConfigError`."""
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
    identity = functools.cache(_identity)  # each question parses the metadata again
    defaults = {(point.name, identity(point.dist)) for point in installed.select(group=DEFAULT_VALIDATORS)}
    for kind, group in GROUPS.items():
        for point in installed.select(group=group):
            name, version = identity(point.dist)
            by_default = kind == "validator" and (point.name, (name, version)) in defaults
            provider = Provider(kind, point.name, name, version, point.value, point, by_default)
            providers[provider] = provider
    return sorted(providers, key=lambda p: (p.kind, p.name, p.distribution))


def _identity(distribution: importlib_metadata.Distribution | None) -> tuple[str, str]:
    """Name and version of who provides a plugin."""
    return (distribution.name, distribution.version) if distribution else ("an unknown distribution", "?")


def _names(environment: Mapping[str, str], variable: str) -> frozenset[str] | None:
    if variable not in environment:
        return None
    return frozenset(name.strip() for name in environment[variable].split(",") if name.strip())
