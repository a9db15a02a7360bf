"""A validator as its module declares it: the metrics that it can find, and which way each is better."""

import typing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from modelmerger.hooks.plugins import Plugin
from modelmerger.values.errors import MergeError, PluginError
from modelmerger.values.text import said_by

if TYPE_CHECKING:
    from modelmerger.values.findings import Better

HOOK = "validate_model"
"""What makes a plugin a validator."""


@frozen(eq=False, repr=False)
class Validator:
    """A validator of a run."""

    plugin: Plugin
    """The validator as its module declares it."""
    metrics: "Mapping[str, Better]"
    """The metrics that it can find, and which way each is better."""
    options: Any = None
    """An instance of its options class; None where it has none."""


def read_validator(plugin: Plugin, options: Any = None) -> Validator:
    """The validator of a plugin, with an instance of its options class. Raises `PluginError` where it is not one.

    Where its `metrics` is a function of its options, also what that raises: `ConfigError`.
    """
    who = plugin.provider
    if HOOK not in plugin.hooks:
        raise PluginError(f"{who} does not have the hook {HOOK}.")
    from modelmerger.values.findings import Better

    metrics, ways = _declared(plugin, options), typing.get_args(Better)
    if not isinstance(metrics, Mapping) or not metrics or not _are_metrics(metrics, ways):
        example = f'metrics = {{"{who.name}": "lower"}}'
        raise PluginError(f"{who} does not say what it finds. Give its module `{example}` (each {' or '.join(ways)}).")
    return Validator(plugin, dict(metrics), options)


def _declared(plugin: Plugin, options: Any) -> Any:
    """What a module says it finds; `metrics` may be a function of its options."""
    found = getattr(plugin.module, "metrics", None)
    if not callable(found):
        return found
    try:
        return found(options)
    except MergeError:
        raise
    except Exception as error:
        raise PluginError(f"{plugin.provider}: metrics raised {type(error).__name__}: {said_by(error)}") from error


def refuse_shared_metrics(validators: Iterable[Validator]) -> None:
    """Raises `PluginError` for a metric that two validators of one run declare."""
    owners: dict[str, Validator] = {}
    for validator in validators:
        for metric in validator.metrics:
            owner = owners.setdefault(metric, validator)
            if owner is not validator:
                both = f"{owner.plugin.provider} and by {validator.plugin.provider}"
                raise PluginError(f"metric '{metric}' is declared twice: by {both}; use one of them.")


def _are_metrics(metrics: Mapping[Any, Any], ways: tuple[str, ...]) -> bool:
    return all(isinstance(name, str) and name and way in ways for name, way in metrics.items())
