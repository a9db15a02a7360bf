"""The plugins of one run: imported, and registered with a manager of their own."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pluggy
from attrs import frozen

from modelmerger.hooks.binding import answers_of, bind, hand_defaults
from modelmerger.hooks.calls import Calls
from modelmerger.hooks.faces import ModelHooks, OutputHooks
from modelmerger.hooks.observers import Observers
from modelmerger.hooks.plugins import Plugin, load
from modelmerger.hooks.providers import BUILT_IN, Provider
from modelmerger.hooks.registry import Registry
from modelmerger.hooks.sources.digests import source_digest
from modelmerger.hooks.specs import STRATEGY_HOOKS
from modelmerger.hooks.specs.manager import Manager
from modelmerger.hooks.strategy import Strategy
from modelmerger.hooks.validation import ValidationHooks
from modelmerger.hooks.validators import read_validator, refuse_shared_metrics
from modelmerger.values.errors import PluginError
from modelmerger.values.sections import Section
from modelmerger.values.text import shown
from modelmerger.values.traits import Traits

NO_STRATEGY = Plugin(
    Provider("strategy", "none", BUILT_IN, "", "", None), None, None, None, (), frozenset({"find_coefficients"})
)
"""Takes the place of a strategy where models are compared or measured, and nothing is merged."""
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@frozen(eq=False, repr=False)
class Hooks:
    """Everything that the core can ask the plugins of one run."""

    strategy: Strategy
    """The strategy of the run."""
    models: ModelHooks
    """Hooks about models."""
    output: OutputHooks
    """Hooks about what is written."""
    validation: ValidationHooks
    """Hooks about merged models."""
    observers: Observers
    """The plugins that observe slices."""
    providers: tuple[Provider, ...]
    """The plugins that take part in the merge itself, without validators."""
    sections: tuple[Section, ...]
    """Top-level keys of the config that its plugins bring."""
    merges: "Mapping[str, Hooks]" = MappingProxyType({})
    """Those of models that are merges themselves, by the keys of the models (`models[0].path`, `base_model`)."""

    @property
    def all_providers(self) -> list[Provider]:
        """The plugins that take part in the merge, and in the merges within it."""
        within = (provider for hooks in self.merges.values() for provider in hooks.all_providers)
        return list(dict.fromkeys([*self.providers, *within]))


def plugins_of(registry: Registry, strategy: str | None, validators: Iterable[str] = ()) -> list[Plugin]:
    """The plugins of a run: the strategy and the validators of these names, and those that are always on."""
    chosen = [registry.find("strategy", strategy)] if strategy is not None else []
    chosen += [registry.find("validator", name) for name in validators]
    return list(map(load, (*chosen, *registry.always_on())))


def with_executor(always_on: Sequence[Plugin], provider: Provider) -> tuple[list[Plugin], str]:
    """The plugins that are always on and an executor, which may be one of them, with its key."""
    executor = load(provider)
    for plugin in always_on:
        if plugin.module is executor.module:
            return list(always_on), plugin.key
    if "run_slices" not in executor.hooks:
        raise PluginError(f"{provider} has no hook run_slices.")
    return [executor, *always_on], executor.key


def assemble(plugins: Sequence[Plugin], options: Mapping[str, Any] = NO_OPTIONS, executor: str | None = None) -> Hooks:
    """The hooks of some plugins. options: by the key of the plugin; a plugin that has none there gets its defaults.

    executor: the key of the plugin that executes the slices; None for the first that will.

    Raises `PluginError` for plugins that do not keep to the conventions.
    """
    calls = register(plugins)
    handed = {plugin.key: _handed(plugin, options) for plugin in plugins}
    for plugin in plugins:
        bind(calls.manager, plugin, handed[plugin.key])
    validators = [
        read_validator(plugin, handed[plugin.key]) for plugin in plugins if plugin.provider.kind == "validator"
    ]
    refuse_shared_metrics(validators)
    return Hooks(
        _strategy(plugins, calls),
        ModelHooks(calls),
        OutputHooks(calls, executor),
        ValidationHooks(calls, {validator.plugin.provider.name: validator for validator in validators}),
        Observers(calls),
        tuple(plugin.provider for plugin in plugins if plugin.provider.kind not in ("validator", "executor")),
        tuple(section for plugin in plugins for section in plugin.sections),
    )


def register(plugins: Sequence[Plugin]) -> Calls:
    """The calls of some plugins, whose options the caller gives. Raises `PluginError` for hooks that do not fit."""
    manager = Manager()
    for plugin in plugins:
        _register(manager, plugin)
    return Calls(manager, {plugin.key: plugin.provider for plugin in plugins})


def _handed(plugin: Plugin, options: Mapping[str, Any]) -> Any:
    if plugin.key in options:
        return options[plugin.key]
    return plugin.options() if plugin.options is not None and plugin.provider.kind != "strategy" else None


def _register(manager: pluggy.PluginManager, plugin: Plugin) -> None:
    try:
        manager.register(plugin.module, plugin.key)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{plugin.provider} does not fit the hooks: {' '.join(str(error).split())}") from error
    for caller, implementation in answers_of(manager, plugin):
        collects = caller.spec is not None and not caller.spec.opts["firstresult"]
        if implementation.hookwrapper or (implementation.wrapper and collects):
            raise PluginError(
                f"{plugin.provider} wraps {caller.name}; only hooks with one result can be wrapped, with wrapper=True."
            )
    hand_defaults(manager, plugin)


def _strategy(plugins: Iterable[Plugin], calls: Calls) -> Strategy:
    plugin = next((plugin for plugin in plugins if plugin.provider.kind == "strategy"), None)
    if plugin is None:
        return Strategy(NO_STRATEGY, Traits(), "", calls)
    traits = getattr(plugin.module, "traits", None)
    if not isinstance(traits, Traits):
        fault = " has no 'traits'" if traits is None else f": 'traits' must be a Traits, got {shown(repr(traits))}"
        raise PluginError(f"{plugin.provider}{fault}. Give its module `traits = Traits(…)`.")
    fingerprint = plugin.provider.digest or source_digest(plugin.module, plugin.provider.shipped)
    if plugin.provider.digest and inspect.ismodule(plugin.module):  # its file may have changed since it was imported
        from modelmerger.hooks.sources.loaded_state import state_digest

        fingerprint += state_digest(plugin.module)
    if "compose_model" in plugin.hooks:
        if others := sorted(STRATEGY_HOOKS & plugin.hooks):
            raise PluginError(f"{plugin.provider} has compose_model, so {others[0]} would never be called.")
        return Strategy(plugin, traits, fingerprint, calls)
    merges = {"find_coefficients", "merge_tensor"} & plugin.hooks
    if len(merges) != 1 and not (len(merges) == 2 and "choose_view" in plugin.hooks):
        ways = "find_coefficients, merge_tensor and compose_model"
        raise PluginError(f"{plugin.provider} must have one of the hooks {ways}, it has {len(merges)}.")
    return Strategy(plugin, traits, fingerprint, calls)
