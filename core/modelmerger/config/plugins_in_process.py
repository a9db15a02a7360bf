"""Plugins given as objects: found in a config, and replaced there by their names."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger.config.models_in_memory import DEEPEST, MERGE, MERGES
from modelmerger.hooks.plugins import is_plugin
from modelmerger.hooks.providers import Kind, Provider
from modelmerger.values.settings import BASE

STRATEGY = "strategy"
VALIDATION, METRICS = "validation", "metrics"


def name_plugins(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Provider]]:
    """The config with the name of a plugin in place of each module or object; and these plugins, each once.

    They stand at `strategy`, also of merges within the merge, and among the `metrics` of `validation`. Only Python can
    put them there: what a file holds is plain data. Raises `PluginError`.
    """
    found: dict[Provider, None] = {}
    plain = _named(given, found)
    validation = plain.get(VALIDATION)
    names = validation.get(METRICS) if isinstance(validation, Mapping) else None
    if isinstance(validation, Mapping) and isinstance(names, Sequence) and not isinstance(names, str):
        named = [_name(name, "validator", found) if is_plugin(name) else name for name in names]
        plain[VALIDATION] = {**validation, METRICS: named}
    return plain, list(found)


def _name(plugin: Any, kind: Kind, found: dict[Provider, None]) -> str:
    from modelmerger.hooks.of_process import provider_of

    provider = provider_of(plugin, kind)
    found[provider] = None
    return provider.name


def _named(given: Mapping[str, Any], found: dict[Provider, None], depth: int = 0) -> dict[str, Any]:
    """A merge, and the merges within it, with names for strategies. found: gets the strategies."""
    plain = dict(given)
    if depth > DEEPEST:  # which is refused later
        return plain
    if is_plugin(plain.get(STRATEGY)):
        plain[STRATEGY] = _name(plain[STRATEGY], "strategy", found)
    if isinstance(models := plain.get("models"), Sequence) and not isinstance(models, str):
        plain["models"] = [_inner(model, found, depth) for model in models]
    if BASE in plain:
        plain[BASE] = _inner(plain[BASE], found, depth)
    if isinstance(named := plain.get(MERGES), Mapping):
        inner = {
            name: _named(one, found, depth + 1) if isinstance(one, Mapping) else one for name, one in named.items()
        }
        plain[MERGES] = inner
    return plain


def _inner(model: Any, found: dict[Provider, None], depth: int) -> Any:
    if isinstance(model, Mapping) and isinstance(model.get(MERGE), Mapping):
        return {**model, MERGE: _named(model[MERGE], found, depth + 1)}
    return model
