"""A validator as its module declares it: the metrics that it can find, and which way each is better."""

import typing
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from modelmerger.hooks.registry import Provider
from modelmerger.values.errors import PluginError
from modelmerger.values.findings import Better

HOOK = "validate_model"


@frozen(eq=False)
class Validator:
    """provider: where it comes from. metrics: name → which way it is better."""

    provider: Provider
    metrics: Mapping[str, Better]


def declared(provider: Provider, plugin: Any, hooks: set[str]) -> Validator:
    """What a validator's module says of itself. Raises `PluginError` where it is none."""
    who = f"{provider.kind} '{provider.name}' from {provider.source}"
    if HOOK not in hooks:
        raise PluginError(f"{who} does not have the hook {HOOK}.")
    metrics, ways = getattr(plugin, "metrics", None), typing.get_args(Better)
    if not isinstance(metrics, Mapping) or not metrics or not _all_named(metrics, ways):
        example = f'metrics = {{"{provider.name}": "lower"}}'
        raise PluginError(f"{who} does not say what it finds. Give its module `{example}` (each {' or '.join(ways)}).")
    return Validator(provider, dict(metrics))


def _all_named(metrics: Mapping[Any, Any], ways: tuple[str, ...]) -> bool:
    return all(isinstance(name, str) and name and way in ways for name, way in metrics.items())
