"""Hands plugins their arguments: those with a default too, and as `options` their own, which callers leave open."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pluggy

from modelmerger.hooks.plugins import Plugin
from modelmerger.hooks.specs import STRATEGY_HOOKS

OPTIONS = "options"


def answers_of(manager: pluggy.PluginManager, plugin: Plugin) -> Iterator[tuple[pluggy.HookCaller, pluggy.HookImpl]]:
    """A registered plugin's answers to hooks, each with what calls the hook."""
    for name in plugin.hooks:
        caller = getattr(manager.hook, name)
        for implementation in caller.get_hookimpls():
            if implementation.plugin is plugin.module:
                yield caller, implementation


def hand_defaults(manager: pluggy.PluginManager, plugin: Plugin) -> None:
    """Arguments of a registered plugin's hooks are handed over though they have a default.

    Whether pluggy itself does so depends on its version.
    """
    for caller, implementation in answers_of(manager, plugin):
        known = caller.spec.argnames if caller.spec is not None else ()
        names = [name for name in implementation.kwargnames if name in known]
        if names:
            positional = implementation.argnames
            _replace(implementation, _by_name(implementation.function, len(positional), names), (*positional, *names))
            implementation.kwargnames = ()  # type: ignore[misc]  # as in _replace


def bind(manager: pluggy.PluginManager, plugin: Plugin, options: Any) -> None:
    """Hands a registered plugin these options from now on. Hooks that only a strategy has get them from the caller."""
    for caller, implementation in answers_of(manager, plugin):
        if caller.name not in STRATEGY_HOOKS and OPTIONS in implementation.argnames:
            index = implementation.argnames.index(OPTIONS)
            others = tuple(name for name in implementation.argnames if name != OPTIONS)
            _replace(implementation, _handed(implementation.function, index, options), others)


def _replace(implementation: pluggy.HookImpl, function: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    """Lets another function answer, which gets these arguments by position. The manager of it is ours alone."""
    # mypy: pluggy declares both final, though it reads them at each call
    implementation.function = function  # type: ignore[misc]
    implementation.argnames = arguments  # type: ignore[misc]


def _by_name(function: Callable[..., Any], positional: int, names: Sequence[str]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return function(*arguments[:positional], **dict(zip(names, arguments[positional:], strict=True)))

    return call


def _handed(function: Callable[..., Any], index: int, options: Any) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return function(*arguments[:index], options, *arguments[index:])

    return call
