"""The keys of a config with their JSON schemas: what its own strategy, validators and plugins declare."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from modelmerger.config.schema import Schema, properties_of
from modelmerger.config.sections import sections_of
from modelmerger.hooks.assembly import plugins_of
from modelmerger.hooks.plugins import Plugin, load
from modelmerger.hooks.registry import Registry
from modelmerger.values.errors import MergeError
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.settings import ModelSettings, ValidationSettings


def keys_of_config(given: Mapping[str, Any], registry: Registry) -> dict[str, Schema]:
    """Each key as `--set` takes it (`models[0].weight`) → its schema. given: the config as far as it is known.

    Without a strategy that can be imported there are the options of every merge, without models those of the first.
    """
    always_on = plugins_of(registry, None)
    chosen = _loaded(registry, "strategy", [given.get("strategy")])
    validation, models = given.get("validation"), given.get("models")
    metrics = validation.get("metrics") if isinstance(validation, Mapping) else None
    if isinstance(metrics, Sequence) and metrics:
        validators = _loaded(registry, "validator", metrics)
    else:
        validators = list(map(load, registry.default_validators()))
    every = [*chosen, *always_on]
    named: dict[str, Schema] = {
        "strategy": {"description": "How the models are merged.", "enum": registry.names("strategy")},
        "base_model": {"description": "The model that the others were tuned from."},
        "output_path": {"description": "Directory of the merged model."},
    }
    named |= _within("options", [CoreOptions, *(plugin.options for plugin in every)])
    for index in range(len(models) if isinstance(models, list) and models else 1):
        named |= _within(f"models[{index}]", [ModelSettings, *(plugin.model_options for plugin in every)])
    for section in sections_of(always_on):
        named |= _within(section.name, [section.options])
    return named | _within("validation", [ValidationSettings, *(plugin.options for plugin in validators)])


def values_of(schema: Mapping[str, Any]) -> Iterator[str]:
    """The values that a schema names, as they are written."""
    if schema.get("type") == "boolean":
        yield from ("true", "false")
    for value in schema.get("enum", ()):
        if value is not None:
            yield str(value).lower() if isinstance(value, bool) else str(value)
    for inner in schema.get("anyOf", ()):
        yield from values_of(inner)


def _within(place: str, classes: Iterable[type | None]) -> dict[str, Schema]:
    return {f"{place}.{name}": schema for name, schema in properties_of(classes).items()}


def _loaded(registry: Registry, kind: Any, names: Iterable[Any]) -> list[Plugin]:
    """The plugins of these names that there are and that can be imported."""
    found = []
    for name in names:
        try:
            found.append(load(registry.find(kind, str(name))))
        except MergeError:
            continue
    return found
