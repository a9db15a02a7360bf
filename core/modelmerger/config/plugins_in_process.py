"""Plugins given as objects: found in a config, and replaced there by their names."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger.hooks.of_process import is_plugin, provider_of
from modelmerger.hooks.providers import Provider

STRATEGY = "strategy"
VALIDATION, METRICS = "validation", "metrics"


def name_plugins(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Provider]]:
    """The config with the name of a plugin in place of each module or object; and these plugins.

    They stand at `strategy`, and among the `metrics` of `validation`. Only Python can put them there: what a file holds
    is plain data. Raises `PluginError`.
    """
    plain, found = dict(given), []
    if is_plugin(given.get(STRATEGY)):
        found.append(provider_of(given[STRATEGY], "strategy"))
        plain[STRATEGY] = found[0].name
    validation = given.get(VALIDATION)
    names = validation.get(METRICS) if isinstance(validation, Mapping) else None
    if isinstance(validation, Mapping) and isinstance(names, Sequence) and not isinstance(names, str):
        validators = {i: provider_of(name, "validator") for i, name in enumerate(names) if is_plugin(name)}
        if validators:
            named = [validators[i].name if i in validators else name for i, name in enumerate(names)]
            plain[VALIDATION] = {**validation, METRICS: named}
            found += dict.fromkeys(validators.values())
    return plain, found
