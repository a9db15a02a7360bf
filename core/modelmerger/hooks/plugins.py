"""A plugin as its module declares it: its options, its sections of the config, and its hooks."""

import dis
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType, ModuleType
from typing import Any

import attrs
from attrs import evolve, frozen

from modelmerger.hooks.faults import with_way_out
from modelmerger.hooks.markers import HOOKS_VERSION, MARK
from modelmerger.hooks.providers import GROUPS, Kind, Provider
from modelmerger.hooks.specs import HOOKS
from modelmerger.values.errors import PluginError
from modelmerger.values.sections import Section
from modelmerger.values.text import shown, suggestion

DOORS: Mapping[str, Kind] = MappingProxyType({"read_config": "reader", "add_commands": "command"})
"""Hooks that are called before there is a run, and the kind of plugin that each is called of."""
IN_TURN = frozenset({"view_models", "adjust_config"})
"""Hooks of which each plugin gets the answer of the one before."""
WITHIN = "within_merges"
"""The attribute with those of them that a plugin is asked for merges within the merge too."""


@frozen(eq=False, repr=False)
class Plugin:
    """An imported plugin that keeps to the conventions of plugins."""

    provider: Provider
    """Where it comes from."""
    module: Any
    """Its module, or the object that its entry point names."""
    options: type | None
    """The attrs class of its options; None where it has none."""
    model_options: type | None
    """The attrs class of its options for each model; None where it has none."""
    sections: tuple[Section, ...]
    """Top-level keys of the config that it brings."""
    hooks: frozenset[str]
    """The names of the hooks that it has."""
    read_options: type | None = None
    """The attrs class of its options as a reader of configs; None where it has none."""
    stand_ins: tuple[type, ...] = ()
    """Attrs classes of what may stand in place of a number of a config until a command of the plugin finds that."""

    @property
    def key(self) -> str:
        """Its kind and name, which are unique in a run."""
        return f"{self.provider.kind} {self.provider.name}"


def load(provider: Provider) -> Plugin:
    """Imports a plugin. Raises `PluginError` where it does not keep to the conventions."""
    try:
        return _load(provider)
    except PluginError as error:
        said = [evolve(p, message=with_way_out(p.message, [provider])) for p in error.problems]
        raise PluginError(*said) from error


def _load(provider: Provider) -> Plugin:
    module = provider.load()
    wanted = getattr(module, "hooks_version", HOOKS_VERSION)
    if wanted != HOOKS_VERSION:
        raise PluginError(f"{provider} wants hooks {wanted}, this is {HOOKS_VERSION}.")
    sections = getattr(module, "sections", ())
    if not isinstance(sections, Collection) or not all(isinstance(section, Section) for section in sections):
        raise PluginError(f"{provider}: 'sections' must hold Sections, got {shown(sections)}.")
    hooks = frozenset(hook_names(provider, module))
    _check_doors(provider, hooks)
    _check_within(provider, getattr(module, WITHIN, ()), hooks)
    _check_arguments(provider, module)
    return Plugin(
        provider,
        module,
        _options(provider, module, "Options"),
        _options(provider, module, "ModelOptions"),
        tuple(sections),
        hooks,
        _options(provider, module, "ReadOptions"),
        _stand_ins(provider, module),
    )


def _check_doors(provider: Provider, hooks: frozenset[str]) -> None:
    """Raises `PluginError` for a hook that nobody would call, because the plugin is no entry point of its group."""
    for hook, kind in DOORS.items():
        if hook in hooks and kind not in provider.roles:
            raise PluginError(
                f"{provider} has the hook {hook}, which is called only of entry points of {GROUPS[kind]}."
            )
        if hook not in hooks and kind == provider.kind:
            raise PluginError(f"{provider} does not have the hook {hook}.")


def _check_within(provider: Provider, named: Any, hooks: Collection[str]) -> None:
    if not isinstance(named, Collection) or isinstance(named, str) or not set(named) <= IN_TURN & set(hooks):
        raise PluginError(f"{provider}: '{WITHIN}' must name hooks of its own among {sorted(IN_TURN)}, got {named!r}.")


def _check_arguments(provider: Provider, module: Any) -> None:
    """Raises `PluginError` for an argument without a default that the hook does not have, or options that are none."""
    for hook, function in _marked(module):
        known = _arguments_of(hook)
        for argument in inspect.signature(function).parameters.values():
            handed = argument.kind in (argument.POSITIONAL_ONLY, argument.POSITIONAL_OR_KEYWORD)
            if handed and argument.default is argument.empty and argument.name not in known:
                near = suggestion(argument.name, known) or f" (it has {', '.join(known)})."
                raise PluginError(f"{provider}: {hook} has no argument '{argument.name}'{near}")
            kind = "ReadOptions" if hook == "read_config" else "Options"
            if argument.name == "options" and not hasattr(module, kind) and (read := _read_of(function, "options")):
                message = f"{hook} reads options.{read}, and the plugin declares no options, so they are None."
                raise PluginError(f"{provider}: {message} Declare them in an attrs class '{kind}'.")


def _read_of(function: Callable[..., Any], name: str) -> str | None:
    """The first attribute that a function reads of an argument; None where none is found."""
    if not inspect.isfunction(plain := inspect.unwrap(function)):
        return None
    for one, other in pairwise(dis.get_instructions(plain)):
        if one.opname.startswith("LOAD_FAST") and one.argval == name and other.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            return str(other.argval)
    return None


@functools.cache
def _arguments_of(hook: str) -> tuple[str, ...]:
    code = HOOKS[hook].__code__
    return tuple(code.co_varnames[: code.co_argcount])


def option_names(cls: type) -> list[str]:
    """The names of the options that an attrs class declares, in order."""
    return [field.name for field in attrs.fields(cls)]


def _options(provider: Provider, module: Any, name: str) -> type | None:
    cls = getattr(module, name, None)
    if cls is None:
        return None
    if not isinstance(cls, type) or not attrs.has(cls):
        message = f"the options must be an attrs class, got {shown(cls)}. Write @frozen, of attrs, above '{name}'."
        raise PluginError(f"{provider}: {message}")
    try:
        attrs.resolve_types(cls)
    except NameError as error:
        raise PluginError(f"{provider}: the types of its options cannot be resolved: {error}.") from error
    required = [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING]
    if required and provider.kind != "strategy":  # a strategy is never used without a config that could give it
        raise PluginError(f"{provider}: the option '{required[0]}' has no default. Give it one.")
    return cls


def _stand_ins(provider: Provider, module: Any) -> tuple[type, ...]:
    found = getattr(module, "stand_ins", ())
    if not isinstance(found, Collection) or not all(isinstance(cls, type) and attrs.has(cls) for cls in found):
        raise PluginError(f"{provider}: 'stand_ins' must hold attrs classes, got {shown(found)}.")
    return tuple(found)


def is_plugin(value: Any) -> bool:
    """Whether this is a module, or an object or class with hooks, as against plain data."""
    if isinstance(value, ModuleType):
        return True
    return any(hasattr(getattr(value, name, None), MARK) for name in dir(value))


def hook_names(provider: Provider | str, module: Any) -> Iterable[str]:
    """The names of a module's hooks. Raises `PluginError` for a function marked as a hook that does not exist."""
    for hook, _ in _marked(module):
        if hook not in HOOKS:
            near = suggestion(hook, HOOKS) or "."
            raise PluginError(f"{provider} does not fit the hooks: there is no hook '{hook}'{near}")
        yield hook


def _marked(module: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions of a module that are marked as hooks, each with the name of its hook."""
    for name in dir(module):
        function: Any = getattr(module, name, None)
        if isinstance(marks := getattr(function, MARK, None), dict):
            yield marks["specname"] or name, function
