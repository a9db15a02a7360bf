"""A plugin as pluggy gets it: its hooks, with its own options in place of the argument `options`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from modelmerger.hooks.markers import PROJECT
from modelmerger.hooks.plugins import Plugin
from modelmerger.hooks.specs import STRATEGY_HOOKS

OPTIONS = "options"


class Bound:
    """Whose attributes are the hooks of a plugin."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        vars(self).update(functions)


def bound(plugin: Plugin, options: Any) -> Bound:
    """The hooks of a plugin that are handed these options. A strategy's own hooks get theirs from who calls them."""
    functions: dict[str, Any] = {}
    for name in dir(plugin.module):
        function: Any = getattr(plugin.module, name, None)
        if (marks := getattr(function, f"{PROJECT}_impl", None)) is not None:
            given = (marks["specname"] or name) in STRATEGY_HOOKS
            functions[name] = function if given else _with_options(function, options, marks)
    return Bound(functions)


def _with_options(function: Any, options: Any, marks: Mapping[str, Any]) -> Any:
    signature = inspect.signature(function)
    names = list(signature.parameters)
    if OPTIONS not in names:
        return function
    place = names.index(OPTIONS)

    def call(*arguments: Any) -> Any:
        return function(*arguments[:place], options, *arguments[place:])

    def wrap(*arguments: Any) -> Any:
        return (yield from function(*arguments[:place], options, *arguments[place:]))

    handed: Any = wrap if inspect.isgeneratorfunction(function) and (marks["wrapper"] or marks["hookwrapper"]) else call
    others = [parameter for name, parameter in signature.parameters.items() if name != OPTIONS]
    handed.__signature__ = signature.replace(parameters=others)
    setattr(handed, f"{PROJECT}_impl", marks)
    return handed
