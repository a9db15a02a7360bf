"""What a module is in memory, which its file may no longer say: its code, its constants, its values."""

import inspect
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import CodeType, FunctionType, ModuleType
from typing import Any

import attrs
from blake3 import blake3

_RESOLVED = "__attrs_types_resolved__"
"""What attrs notes in a class once its types were asked for: the class itself."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))


def state_digest(module: ModuleType) -> str:
    """A digest of the functions, classes and plain values of a module, as they are now; the same in every process.

    Of what is of another module, and of values of other kinds, only the name counts.
    """
    named = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    return blake3(repr(_mapping(named, module.__name__)).encode()).hexdigest()


def _described(value: Any, home: str) -> Any:
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, FunctionType) and value.__code__.co_filename.startswith("<attrs generated"):
        return "generated"  # by attrs from the fields, with a random number in it
    if isinstance(value, FunctionType):
        defaults = [_described(each, home) for each in (value.__defaults__ or (), value.__kwdefaults__ or {})]
        return ["function", _code(value.__code__), *defaults]
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, staticmethod | classmethod):
        return _described(value.__func__, home)
    if inspect.isclass(value) and value.__module__ == home:
        fields = attrs.fields(value) if attrs.has(value) else ()
        defaults = [[field.name, _described(field.default, home), str(field.type)] for field in fields]
        own = {name: each for name, each in vars(value).items() if name != _RESOLVED}
        return ["class", [base.__qualname__ for base in value.__bases__], defaults, _mapping(own, home)]
    if attrs.has(type(value)):
        held = {field.name: getattr(value, field.name, None) for field in attrs.fields(type(value))}
        return [type(value).__qualname__, _mapping(held, home)]
    if isinstance(value, Mapping):
        return _mapping(value, home)
    if isinstance(value, list | tuple):
        return [_described(each, home) for each in value]
    if isinstance(value, AbstractSet):
        return _sorted(value, home)
    return getattr(value, "__qualname__", None) or type(value).__qualname__


def _mapping(held: Mapping[Any, Any], home: str) -> list[Any]:
    return sorted(([repr(_described(key, home)), _described(value, home)] for key, value in held.items()), key=repr)


def _sorted(values: Iterable[Any], home: str) -> list[Any]:
    return sorted((_described(value, home) for value in values), key=repr)


def _code(code: CodeType) -> list[Any]:
    constants = [_described(constant, "") for constant in code.co_consts]
    return [code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, constants]
