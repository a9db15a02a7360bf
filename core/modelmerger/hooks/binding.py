"""Plugins get their own options: in place of the argument `options`, which everybody who asks leaves open."""

from collections.abc import Callable
from typing import Any

import pluggy

from modelmerger.hooks.specs import STRATEGY_HOOKS

OPTIONS = "options"


def bind(manager: pluggy.PluginManager, plugin: Any, options: Any) -> None:
    """Hands a registered plugin these options from now on. A strategy's own hooks get theirs from who calls them."""
    for caller in manager.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls() if caller.name not in STRATEGY_HOOKS else ():
            if implementation.plugin is plugin and OPTIONS in implementation.argnames:
                place = implementation.argnames.index(OPTIONS)
                others = tuple(name for name in implementation.argnames if name != OPTIONS)
                # this manager is ours alone, and nobody else looks at what it holds
                implementation.function = _handed(implementation.function, place, options)  # type: ignore[misc]
                implementation.argnames = others  # type: ignore[misc]


def _handed(function: Callable[..., Any], place: int, options: Any) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return function(*arguments[:place], options, *arguments[place:])

    return call
