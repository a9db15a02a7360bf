"""Plugins under test: installed ones by name, and modules or objects of this process."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import attrs
from attrs import frozen

from modelmerger.config.strict_attrs import inside, structure
from modelmerger.hooks.plugins import Plugin, load
from modelmerger.hooks.providers import OF_PROCESS, Kind, Provider
from modelmerger.hooks.registry import Registry
from modelmerger.hooks.sources.digests import content_digest
from modelmerger.values.errors import ConfigError, Problem


@frozen(eq=False)
class _Handed:
    """An entry point of a plugin that is imported already."""

    plugin: Any

    def load(self) -> Any:
        return self.plugin


def provider_under_test(plugin: Any, kind: Kind) -> Provider:
    """The entry point of an installed plugin of this name, or one made for a module or an object."""
    if isinstance(plugin, str):
        return Registry.installed().find(kind, plugin)
    module = isinstance(plugin, ModuleType)
    target = plugin.__name__ if module else type(plugin).__module__
    name = target.rpartition(".")[2] if module else type(plugin).__name__
    digest = content_digest(plugin) or "unknown"
    return Provider(
        kind, name, OF_PROCESS, target, target, _Handed(plugin), roles=frozenset({kind, "plugin"}), digest=digest
    )


def plugin_under_test(plugin: Any, kind: Kind, hook: str) -> Plugin:
    """The plugin, imported. Raises `ConfigError` for a name that nobody has, `AssertionError` without the hook."""
    found = load(provider_under_test(plugin, kind))
    if hook not in found.hooks:
        raise AssertionError(f"{found.provider} has no hook {hook}. Mark a function of that name with @hookimpl.")
    return found


def all_plugins(tested: Plugin) -> list[Plugin]:
    """The plugin under test first, then the others that are always on."""
    others = [load(provider) for provider in Registry.installed().always_on()]
    return [tested, *(plugin for plugin in others if plugin.module is not tested.module)]


def handed_options(plugin: Plugin, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that its hooks are handed, by its key: its defaults, and what is given, read as in a config.

    Raises `ConfigError` for what no config could say.
    """
    place = "validation" if plugin.provider.kind == "validator" else "options"
    if plugin.options is None and given:
        raise ConfigError(
            Problem(f"{plugin.provider} declares no Options. Leave it out", inside(place, next(iter(given))))
        )
    return {} if plugin.options is None else {plugin.key: structure(given or {}, plugin.options, place)}


def declared_names(cls: type | None) -> list[str]:
    """The names of the options that a class declares."""
    return [] if cls is None else [field.name for field in attrs.fields(cls)]
