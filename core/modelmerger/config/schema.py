"""The JSON Schema of a config, for editors: `python -m modelmerger.config.schema` prints it.

It says what `MergeConfig` would say of names, types, ranges and owners of options. Strategies of other distributions are allowed
by any name, with any options.
"""

import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, cast

import attrs

from modelmerger.hooks.assembly import assemble
from modelmerger.hooks.calls import Hooks
from modelmerger.hooks.registry import ALLOW, Registry
from modelmerger.values.option_checks import Check
from modelmerger.values.settings import CoreOptions, ModelSettings, PeftSettings, ValidationSettings

Schema = dict[str, Any]
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_CHOSEN = "strategy"
_TEXT: Schema = {"type": "string"}


def config_schema() -> Schema:
    """The schema (draft 2020-12) of what this distribution understands, whatever else is installed."""
    registry = Registry.installed({ALLOW: ""})
    strategies = {name: assemble(registry, name) for name in registry.names("strategy")}
    always_on = [options for _, options in assemble(registry, None).declared_options()]
    common = _properties(CoreOptions)
    for options in always_on:
        common |= _properties(options)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "modelmerger config",
        "type": "object",
        "required": [_CHOSEN, "models"],
        "additionalProperties": False,
        "properties": {
            _CHOSEN: {
                "description": "How the models are merged: the name of an installed strategy.",
                "anyOf": [{"enum": sorted(strategies)}, {"type": "string", "minLength": 1}],
            },
            "models": {
                "description": "What is merged.",
                "type": "array",
                "minItems": 1,
                "items": _object(ModelSettings),
            },
            "base_model": _path("The model that the others were tuned from; config and tokenizer are taken from it."),
            "output_path": _path("Directory of the merged model. Its parent must exist."),
            "options": {"description": "How it is merged.", "type": ["object", "null"], "properties": common},
            "peft_config": _optional_object(PeftSettings),
            "validation": _optional_object(ValidationSettings),
        },
        "allOf": [_of_strategy(name, hooks, list(common)) for name, hooks in strategies.items()],
    }


def _of_strategy(name: str, hooks: Hooks, common: list[str]) -> Schema:
    """What holds for one strategy alone: its options and no others, how many models, which operations, the base model."""
    traits = hooks.strategy.traits
    own = _properties(hooks.strategy.options) if hooks.strategy.options else {}
    fewest, most = traits.models
    models: Schema = {"minItems": fewest, "items": {"properties": {"operation": {"enum": list(traits.operations)}}}}
    if most is not None:
        models["maxItems"] = most
    options = {"properties": own, "propertyNames": {"enum": [*common, *own]}}
    consequence: Schema = {"properties": {"models": models, "options": options}}
    if traits.needs_base:
        consequence["anyOf"] = [
            {"required": ["base_model"], "properties": {"base_model": _TEXT}},
            {"required": ["peft_config"], "properties": {"peft_config": {"type": "object", "minProperties": 1}}},
        ]
    return {"if": {"required": [_CHOSEN], "properties": {_CHOSEN: {"const": name}}}, "then": consequence}


def _path(description: str) -> Schema:
    return {"description": description, "type": ["string", "null"], "minLength": 1}


def _optional_object(cls: type) -> Schema:
    """Nothing, an empty mapping, or an object of this attrs class."""
    return {"anyOf": [{"type": "null"}, {"type": "object", "maxProperties": 0}, _object(cls)]}


def _object(cls: type) -> Schema:
    properties = _properties(cls)
    required = [name for name, schema in properties.items() if _must_be_given(schema)]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _must_be_given(schema: Schema) -> bool:
    """No default, or one that is not allowed."""
    return "default" not in schema or schema["default"] not in schema.get("enum", [schema["default"]])


def _properties(cls: type) -> dict[str, Schema]:
    fields = attrs.fields(attrs.resolve_types(cast("type[attrs.AttrsInstance]", cls)))
    described = _descriptions(cls, [field.name for field in fields])
    properties = {}
    for field in fields:
        schema: Schema = {"description": described[field.name]} | _value(field.type, field.validator)
        if field.default is not attrs.NOTHING:
            schema["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
        properties[field.name] = schema
    return properties


def _descriptions(cls: type, names: list[str]) -> dict[str, str]:
    """The docstring of an options class says `name: text.` for every field."""
    parts = re.split(rf"\b({'|'.join(names)}): ", " ".join((cls.__doc__ or "").split()))
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _value(kind: Any, validator: Any) -> Schema:
    choices = typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)
    others = [choice for choice in choices if choice is not type(None)]
    check = getattr(validator, "validator", validator)
    allows: Mapping[str, Any] = check.allows if isinstance(check, Check) else {}
    schema = dict(allows) if "enum" in allows else {**_any(others), **allows}
    if len(others) == len(choices) or None in schema.get("enum", ()):
        return schema
    return {"anyOf": [{"type": "null"}, schema]}


def _any(kinds: list[Any]) -> Schema:
    return _type(kinds[0]) if len(kinds) == 1 else {"anyOf": [_type(kind) for kind in kinds]}


def _type(kind: Any) -> Schema:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        length = {} if Ellipsis in arguments else {"minItems": len(arguments), "maxItems": len(arguments)}
        return {"type": "array", "items": _type(arguments[0])} | length
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(arguments[1], None)}
    return {"type": _TYPES[kind]}


if __name__ == "__main__":
    print(json.dumps(config_schema(), indent=2, ensure_ascii=False))  # noqa: T201 (what it is for)
