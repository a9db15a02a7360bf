"""The JSON Schema of a config, for editors: `python -m modelmerger.config.schema` prints it.

It says what `MergeConfig` would say of names, types, ranges and owners of options. Strategies of other distributions
are allowed by any name, with any options.
"""

import ast
import inspect
import itertools
import json
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, cast

import attrs

from modelmerger.config.found_merges import NAME
from modelmerger.config.models_in_memory import MERGE, MERGES
from modelmerger.config.sections import sections_of
from modelmerger.config.strict_attrs import kind_of
from modelmerger.hooks.assembly import assemble, plugins_of
from modelmerger.hooks.plugins import Plugin, load
from modelmerger.hooks.registry import ALLOW, Registry
from modelmerger.values.options.checks import Check
from modelmerger.values.options.core import OF_A_MERGE, CoreOptions
from modelmerger.values.sections import Section
from modelmerger.values.settings import BASE, ModelSettings, ValidationSettings

Schema = dict[str, Any]
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_CHOSEN = "strategy"
_NUMBERS = ("number", "integer")
_GIVEN: Schema = {"type": ["string", "object"]}
_INNER: Schema = {"description": "A merge in place of a model.", "$ref": f"#/$defs/{MERGE}"}


def config_schema() -> Schema:
    """The schema (draft 2020-12) of a config for this distribution alone, whatever else is installed."""
    registry = Registry.installed({ALLOW: ""})
    strategies = [load(registry.find("strategy", name)) for name in registry.names("strategy")]
    validators = [load(registry.find("validator", name)) for name in registry.names("validator")]
    always_on = plugins_of(registry, None)
    common = properties_of([CoreOptions, *(plugin.options for plugin in always_on)])
    sections = sections_of(always_on)
    of_models = properties_of([plugin.model_options for plugin in always_on])
    strategy: Schema = {
        "description": "How the models are merged: the name of an installed strategy.",
        "anyOf": [{"enum": registry.names("strategy")}, {"type": "string", "minLength": 1}],
    }
    own = {name: schema for name, schema in _properties(CoreOptions).items() if name in OF_A_MERGE}
    inner: Schema = {
        "description": "A merge that is made while it is read, and written nowhere.",
        **_merge({_CHOSEN: strategy, **_of_every_merge(sections, of_models)}, own, strategies, sections, of_models),
    }
    schema: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "modelmerger config",
        **_merge(
            {
                _CHOSEN: strategy,
                **_of_every_merge(sections, of_models),
                MERGES: {
                    "description": "Merges that paths can name, by their names.",
                    "type": ["object", "null"],
                    "propertyNames": {"pattern": f"^{NAME}$"},
                    "additionalProperties": _INNER,
                },
                "output_path": _path("Directory of the merged model. Its parent must exist."),
                "validation": _validation(validators),
            },
            common,
            strategies,
            sections,
            of_models,
        ),
        "$defs": {MERGE: inner},
    }
    stand_ins = [cls for plugin in always_on for cls in plugin.stand_ins]
    return _with_stand_ins(schema, stand_ins) if stand_ins else schema


def _with_stand_ins(schema: Schema, stand_ins: Sequence[type]) -> Schema:
    """The schema with what may stand in place of the numbers of models, and of options of strategies."""

    def numbers(value: Any) -> Any:
        if isinstance(value, list):
            return [numbers(item) for item in value]
        if not isinstance(value, dict):
            return value
        found = {key: item if key == "$defs" else numbers(item) for key, item in value.items()}
        kind = value.get("type")
        return {"$ref": f"#/$defs/{kind}"} | _without_type(found) if kind in _NUMBERS else found

    def of_merge(merge: Schema) -> Schema:
        properties = merge["properties"] | {"models": numbers(merge["properties"]["models"])}
        return merge | {"properties": properties, "allOf": numbers(merge["allOf"])}

    defs = {name: of_merge(inner) for name, inner in schema["$defs"].items()}
    others = list(map(_object, stand_ins))
    return of_merge(schema) | {"$defs": defs | {kind: {"anyOf": [{"type": kind}, *others]} for kind in _NUMBERS}}


def _without_type(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "type"}


def _merge(
    properties: Schema, options: Schema, strategies: Iterable[Plugin], sections: Sequence[Section], of_models: Schema
) -> Schema:
    """The schema of a merge. options, of_models: of the core, and of plugins that are always on."""
    of_options = {"description": "How it is merged.", "type": ["object", "null"], "properties": options}
    return {
        "type": "object",
        "required": [_CHOSEN, "models"],
        "additionalProperties": False,
        "properties": properties | {"options": of_options},
        "allOf": [_of_strategy(plugin, list(options), sections, list(of_models)) for plugin in strategies],
    }


def _of_every_merge(sections: Iterable[Section], of_models: Schema) -> Schema:
    """The properties of a merge, be it within another one or not, besides its strategy and its options."""
    model = _object(ModelSettings)
    model["properties"] |= of_models
    model["properties"][MERGE] = _INNER
    del model["required"]
    base = _path("The model that the others were tuned from; config and tokenizer are taken from it.")
    of_merge: Schema = {
        "type": "object",
        "properties": {MERGE: _INNER},
        "required": [MERGE],
        "additionalProperties": False,
    }
    either = [{"required": [this], "properties": {other: False}} for this, other in (("path", MERGE), (MERGE, "path"))]
    return {
        "models": {
            "description": "What is merged.",
            "type": "array",
            "minItems": 1,
            "items": model | {"additionalProperties": True, "anyOf": either},
        },
        BASE: {"description": base.pop("description"), "anyOf": [base, of_merge]},
        **{section.name: _section(section) for section in sections},
    }


def _of_strategy(plugin: Plugin, common: list[str], sections: Sequence[Section], of_models: list[str]) -> Schema:
    """What holds for one strategy alone: its options, the number and options of models, and whether it needs a base."""
    traits = assemble([plugin]).strategy.traits
    own, of_model = properties_of([plugin.options]), properties_of([plugin.model_options])
    fewest, most = traits.models
    keys = [*_properties(ModelSettings), MERGE, *of_models, *of_model]
    if not traits.weights:
        of_model = {**of_model, "weight": {"const": 1}}
    models: Schema = {"minItems": fewest, "items": {"properties": of_model, "propertyNames": {"enum": keys}}}
    if most is not None:
        models["maxItems"] = most
    options = {"properties": own, "propertyNames": {"enum": [*common, *own]}}
    consequence: Schema = {"properties": {"models": models, "options": options}}
    if traits.wants_base:
        consequence["anyOf"] = [{"required": ["base_model"], "properties": {"base_model": _GIVEN}}] + [
            {"required": [section.name], "properties": {section.name: {"type": "object", "minProperties": 1}}}
            for section in sections
            if section.brings_base
        ]
    return {
        "if": {"required": [_CHOSEN], "properties": {_CHOSEN: {"const": plugin.provider.name}}},
        "then": consequence,
    }


def _validation(validators: Sequence[Plugin]) -> Schema:
    """Keys of the core and of validators; if a validator of another distribution is named, any other keys too."""
    names = [plugin.provider.name for plugin in validators]
    known = properties_of([ValidationSettings, *(plugin.options for plugin in validators)])
    ours: Schema = {"properties": {"metrics": {"anyOf": [{"type": "null"}, {"items": {"enum": names}}]}}}
    section: Schema = {"type": "object", "properties": known}
    section |= {"if": ours, "then": {"propertyNames": {"enum": list(known)}}}
    return {"anyOf": [{"type": "null"}, {"type": "object", "maxProperties": 0}, section]}


def _path(description: str) -> Schema:
    return {"description": description, "type": ["string", "null"], "minLength": 1}


def _optional_object(cls: type) -> Schema:
    """The schema of nothing, an empty mapping, or an object of this attrs class."""
    return {"anyOf": [{"type": "null"}, {"type": "object", "maxProperties": 0}, _object(cls)]}


def _section(section: Section) -> Schema:
    described = {"description": section.description} if section.description else {}
    return described | _optional_object(section.options)


def _object(cls: type) -> Schema:
    properties = _properties(cls)
    required = [name for name, schema in properties.items() if _must_be_given(schema)]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _must_be_given(schema: Schema) -> bool:
    """Whether a property has no default, or one that is not allowed."""
    return "default" not in schema or schema["default"] not in schema.get("enum", [schema["default"]])


def properties_of(classes: Iterable[type | None]) -> dict[str, Schema]:
    """The schema of each field of some attrs classes, with its description and its default."""
    return {name: schema for cls in classes if cls is not None for name, schema in _properties(cls).items()}


def _properties(cls: type) -> dict[str, Schema]:
    fields = attrs.fields(attrs.resolve_types(cast("type[attrs.AttrsInstance]", cls)))
    descriptions = descriptions_of(cls)
    properties = {}
    for field in fields:
        schema: Schema = {"description": descriptions[field.name]} | _value(kind_of(field), field.validator)
        if field.default is not attrs.NOTHING:
            schema["default"] = _plain_default(field.default)
        properties[field.name] = schema
    return properties


def _plain_default(default: Any) -> Any:
    """A default as a config would have it."""
    default = default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]  # as attrs types it
    if attrs.has(type(default)):
        return {field.name: _plain_default(getattr(default, field.name)) for field in attrs.fields(type(default))}
    return list(default) if isinstance(default, tuple) else default


def descriptions_of(cls: type) -> dict[str, str]:
    """The docstring under each field of a class and of those that it inherits from."""
    homes = [home for home in reversed(cls.__mro__) if attrs.has(home)]
    return {name: text for home in homes for name, text in _own_descriptions(home).items()}


def _own_descriptions(cls: type) -> dict[str, str]:
    """The docstring under each field of a class, from its source: Python itself does not keep them."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    lines = definition.body if isinstance(definition, ast.ClassDef) else []
    descriptions = {}
    for line, below in itertools.pairwise(lines):
        told = below.value if isinstance(below, ast.Expr) else None
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(told, ast.Constant):
            descriptions[line.target.id] = " ".join(str(told.value).split())
    return descriptions


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
    if origin in (Union, types.UnionType):
        return _any(list(arguments))
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(arguments[1], None)}
    return _object(kind) if attrs.has(kind) else {"type": _TYPES[kind]}


if __name__ == "__main__":
    print(json.dumps(config_schema(), indent=2, ensure_ascii=False))  # noqa: T201 (what it is for)
