"""Plain data into attrs classes, strictly: no coercion, no unknown key, and every problem at once with its key."""

import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, Union, cast

import attrs
import cattrs
from attrs import evolve
from cattrs.errors import IterableValidationError, IterableValidationNote
from cattrs.gen import mapping_structure_factory

from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.text import suggestion
from modelmerger.values.weights import Weight, may_vary

T = TypeVar("T")
_UNKNOWN = r"unknown key '(?P<key>\w+)'(, did you mean '.*'\?)?"
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "nothing"}


def structure(data: Any, cls: type[T], where: str) -> T:
    """An instance of the attrs class `cls` from a mapping.

    Each value must have the type of its field and pass the field's validators, and so must defaults. where: the key of
    the mapping in the config. Raises `ConfigError` with one problem for each thing that is wrong, and its key
    (`models[0].weight`).
    """
    if not isinstance(data, Mapping):
        raise ConfigError(Problem(f"must be a mapping, got {show_value(data)}", where))
    fields = attrs.fields(attrs.resolve_types(cast("type[attrs.AttrsInstance]", cls)))
    problems = unknown_keys(data, [field.name for field in fields], where)
    values: dict[str, Any] = {}
    wrong = set()
    for field in fields:
        if field.name in data:
            try:
                values[field.name] = _converter.structure(data[field.name], kind_of(field))
            except Exception as error:
                problems += _problems(error, inside(where, field.name))
                wrong.add(field.name)
        elif field.default is attrs.NOTHING:
            problems.append(Problem(f"the key '{field.name}' is missing", where))
    present = types.SimpleNamespace(**{f.name: values[f.name] if f.name in values else _default(f) for f in fields})
    for field in fields:
        value = getattr(present, field.name)
        if field.validator is not None and field.name not in wrong and value is not attrs.NOTHING:
            try:
                field.validator(present, field, value)
            except (ValueError, TypeError) as error:
                problems.append(Problem(_reason(error), inside(where, field.name)))
    if problems:
        raise ConfigError(*problems)
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(Problem(_reason(error), where)) from error


def kind_of(field: "attrs.Attribute[Any]") -> Any:
    """The type of a field; of one that varies, with what may stand for its number in a config."""
    if not may_vary(field):
        return field.type
    others = [kind for kind in typing.get_args(field.type) if kind is not float]
    return Union[(Weight, *others)] if others else Weight


def _default(field: "attrs.Attribute[Any]") -> Any:
    """The default; NOTHING where there is none, or where the instance is needed to make it."""
    default: Any = field.default
    if not isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types its Factory as a function
        return default
    return attrs.NOTHING if default.takes_self else default.factory()


def _reason(error: Exception) -> str:
    """The sentence of an error, without the field and the value that attrs' own validators put behind it."""
    return str(error.args[0] if error.args else error)


def unknown_keys(data: Iterable[Any], known: Iterable[str], where: str) -> list[Problem]:
    """One problem for each key that is not known, with the nearest known one."""
    known = list(known)
    return [Problem(f"unknown key {key!r}{suggestion(str(key), known)}", where) for key in data if key not in known]


def unknown_key(problem: Problem) -> str | None:
    """The key that a problem says is unknown; None where it says something else."""
    found = re.fullmatch(_UNKNOWN, problem.message)
    return found["key"] if found else None


def inside(where: str, key: str) -> str:
    """The whole key of a key inside a mapping: `options` and `seed` → `options.seed`."""
    return f"{where}.{key}" if where else key


def _problems(error: Exception, where: str) -> Iterator[Problem]:
    if isinstance(error, IterableValidationError):
        for inner in error.exceptions:
            notes = [note for note in getattr(inner, "__notes__", ()) if isinstance(note, IterableValidationNote)]
            yield from _problems(inner, where + "".join(f"[{note.index!r}]" for note in notes))
    elif isinstance(error, ConfigError):
        yield from (evolve(problem, where=inside(where, problem.where).rstrip(".")) for problem in error.problems)
    else:
        yield Problem(str(error), where)


def show_value(value: Any) -> str:
    """A value of the config as messages show it."""
    return "nothing" if value is None else repr(value)


def _wrong(expected: str, value: Any) -> ValueError:
    hint = ""
    if isinstance(value, str) and "number" in expected:
        from modelmerger.config.documents.written_numbers import number_meant, written_plainly

        hint = "Write it without quotes" if number_meant(value) == value else written_plainly(value)
    return ValueError(f"must be {expected}, got {show_value(value)}{f'. {hint}' if hint else ''}")


def _exactly(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise _wrong(_KINDS[kind], value)
    return value


def _number(value: Any, _: type) -> float:
    if type(value) not in (int, float):
        raise _wrong(_KINDS[float], value)
    return float(value)


def _choice(value: Any, kind: Any) -> Any:
    choices = typing.get_args(kind)
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise _wrong(f"one of {', '.join(map(str, choices))}", value)
    return value


def _any_of(value: Any, kind: Any) -> Any:
    choices = typing.get_args(kind)
    given = list if isinstance(value, tuple) else dict if isinstance(value, Mapping) else type(value)
    for choice in choices:
        if _kind(choice) is given or (choice is float and given is int):
            return _converter.structure(value, choice)
    literals = [choice for choice in choices if typing.get_origin(choice) is typing.Literal]
    for choice in literals:
        if value in typing.get_args(choice):
            return value
    names = [_name(choice) for choice in choices if choice is not type(None)]
    raise _wrong(" or ".join(names), value)


def _kind(choice: Any) -> Any:
    origin = typing.get_origin(choice) or choice
    return list if origin is tuple else dict if attrs.has(origin) else origin


def _name(choice: Any) -> str:
    if typing.get_origin(choice) is typing.Literal:
        return " or ".join(repr(value) for value in typing.get_args(choice))
    return {list: "a list", dict: "a mapping"}.get(_kind(choice)) or _KINDS[choice]


def _strict_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for kind in (bool, int, str, type(None)):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_func(attrs.has, lambda value, kind: structure(value, kind, ""))
    converter.register_structure_hook_func(_is(typing.Literal), _choice)
    converter.register_structure_hook_func(_is(Union, types.UnionType), _any_of)
    converter.register_structure_hook_factory(_is(tuple), _guarded(list | tuple, "a list"))
    converter.register_structure_hook_factory(_is(dict), _guarded(Mapping, "a mapping"))
    return converter


def _is(*origins: Any) -> Callable[[Any], bool]:
    return lambda kind: typing.get_origin(kind) in origins


def _tuple_hook(converter: cattrs.Converter) -> Any:
    """How cattrs structures tuples, the only containers that it has no factory of hooks for."""
    return converter._structure_tuple  # noqa: SLF001


def _guarded(container: Any, name: str) -> Any:
    """A factory of hooks that refuse what cattrs would take for a container, such as a text for a list of letters."""

    def factory(wanted: Any, converter: cattrs.Converter) -> Any:
        is_mapping = typing.get_origin(wanted) is dict
        inner = mapping_structure_factory(wanted, converter) if is_mapping else _tuple_hook(converter)
        arguments = typing.get_args(wanted)
        fixed = None if is_mapping or Ellipsis in arguments else len(arguments)

        def hook(value: Any, kind: Any) -> Any:
            if not isinstance(value, container):
                raise _wrong(name, value)
            if fixed is not None and len(value) != fixed:
                raise _wrong(f"a list of {fixed}", value)
            return inner(value, kind)

        return hook

    return factory


_converter = _strict_converter()
