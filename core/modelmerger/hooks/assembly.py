"""The plugins of one run: imported, checked against the hooks, and registered with a manager that nobody else has."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pluggy
from blake3 import blake3

from modelmerger.hooks import specs as hookspecs
from modelmerger.hooks.calls import Hooks, Strategy, described
from modelmerger.hooks.registry import BUILT_IN, Provider, Registry
from modelmerger.hooks.validator import Validator, declared
from modelmerger.values.errors import PluginError
from modelmerger.values.text import suggestion
from modelmerger.values.traits import Traits

NO_STRATEGY = Strategy(Provider("strategy", "none", BUILT_IN, "", "", None), Traits(), None, True, True, "")
"""Stands where models are compared and nothing is merged."""


def assemble(registry: Registry, strategy: str | None, validators: Iterable[str] = ()) -> Hooks:
    """A plugin manager of its own for one run: the named strategy and validators, and the plugins that are always on."""
    chosen = [registry.find("strategy", strategy)] if strategy is not None else []
    chosen += [registry.find("validator", name) for name in validators]
    providers = (*chosen, *registry.always_on())
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    by_name = {}
    plugins = {}
    for provider in providers:
        name = f"{provider.kind} {provider.name}"
        by_name[name] = provider
        plugins[name] = _register(manager, provider, name)

    def hooks_of(name: str) -> set[str]:
        return {caller.name for caller in manager.get_hookcallers(plugins[name]) or ()}

    found = {p.name: declared(p, plugins[n], hooks_of(n)) for n, p in by_name.items() if p.kind == "validator"}
    _refuse_shared_metrics(found.values())
    if strategy is None:
        return Hooks(NO_STRATEGY, providers, manager, by_name, found)
    name = f"strategy {strategy}"
    return Hooks(_strategy(chosen[0], plugins[name], hooks_of(name)), providers, manager, by_name, found)


def _register(manager: pluggy.PluginManager, provider: Provider, name: str) -> Any:
    plugin = provider.load()
    wanted = getattr(plugin, "hooks_version", hookspecs.HOOKS_VERSION)
    if wanted != hookspecs.HOOKS_VERSION:
        raise PluginError(f"{described(provider)} wants hooks {wanted}, this is {hookspecs.HOOKS_VERSION}.")
    try:
        manager.register(plugin, name)
        _refuse_wrappers(manager, provider, plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        reason = " ".join(str(error).split())
        known = [spec for spec, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")]
        unknown = [hook for hook in vars(plugin) if f"hook {hook!r}" in reason and hook not in known]
        near = suggestion(unknown[0], known).lstrip(", ") if unknown else ""
        raise PluginError(
            f"{described(provider)} does not fit the hooks{f' ({near})' if near else ''}: {reason}"
        ) from error
    return plugin


def _refuse_wrappers(manager: pluggy.PluginManager, provider: Provider, plugin: Any) -> None:
    for caller in manager.get_hookcallers(plugin) or ():
        collects = caller.spec is not None and not caller.spec.opts["firstresult"]
        for implementation in caller.get_hookimpls():
            wraps = implementation.hookwrapper or (implementation.wrapper and collects)
            if implementation.plugin is plugin and wraps:
                raise PluginError(
                    f"{described(provider)} wraps {caller.name}; only hooks with one result can be wrapped, with wrapper=True."
                )


def _refuse_shared_metrics(validators: Iterable[Validator]) -> None:
    owners: dict[str, Validator] = {}
    for validator in validators:
        for metric in validator.metrics:
            owner = owners.setdefault(metric, validator)
            if owner is not validator:
                both = f"{described(owner.provider)} and by {described(validator.provider)}"
                raise PluginError(f"metric '{metric}' is declared twice: by {both}; use one of them.")


def _strategy(provider: Provider, plugin: Any, hooks: set[str]) -> Strategy:
    traits = getattr(plugin, "traits", None)
    if not isinstance(traits, Traits):
        raise PluginError(f"{described(provider)} has no 'traits'. Give its module `traits = Traits(…)`.")
    merges = {"find_coefficients", "merge_tensor"} & hooks
    if len(merges) != 1:
        raise PluginError(
            f"{described(provider)} must have one of the hooks find_coefficients and merge_tensor, it has {len(merges)}."
        )
    linear = "find_coefficients" in hooks
    merges_updates = linear and ("finish_tensor" not in hooks or traits.updates)
    return Strategy(provider, traits, getattr(plugin, "Options", None), linear, merges_updates, _fingerprint(plugin))


def _fingerprint(plugin: Any) -> str:
    try:
        source = inspect.getsourcefile(plugin if inspect.ismodule(plugin) else type(plugin))
        return blake3(Path(source or "").read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""
