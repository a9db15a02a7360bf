"""Hands plugins their arguments: those with a default too, and as `options` their own, which callers leave open."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pluggy

from modelmerger.hooks.specs import STRATEGY_HOOKS

OPTIONS = "options"


def hand_defaults(callers: Iterable[pluggy.HookCaller], plugin: Any) -> None:
    """Arguments of a registered plugin's hooks are handed over though they have a default. callers: of its hooks.

    Whether pluggy itself does so depends on its version.
    """
    for caller in callers:
        known = caller.spec.argnames if caller.spec is not None else ()
        for implementation in caller.get_hookimpls():
            names = [name for name in implementation.kwargnames if name in known]
            if implementation.plugin is plugin and names:
                positional = implementation.argnames
                _replace(
                    implementation, _by_name(implementation.function, len(positional), names), (*positional, *names)
                )
                implementation.kwargnames = ()  # type: ignore[misc]  # as in _replace


def bind(manager: pluggy.PluginManager, plugin: Any, options: Any) -> None:
    """Hands a registered plugin these options from now on. Hooks that only a strategy has get them from the caller."""
    for caller in manager.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls() if caller.name not in STRATEGY_HOOKS else ():
            if implementation.plugin is plugin and OPTIONS in implementation.argnames:
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
