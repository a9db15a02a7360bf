"""Hands plugins their own options as the argument `options`, which callers of hooks leave open."""

from collections.abc import Callable
from typing import Any

import pluggy

from modelmerger.hooks.specs import STRATEGY_HOOKS

OPTIONS = "options"


def bind(manager: pluggy.PluginManager, plugin: Any, options: Any) -> None:
    """Hands a registered plugin these options from now on. Hooks that only a strategy has get them from the caller."""
    for caller in manager.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls() if caller.name not in STRATEGY_HOOKS else ():
            if implementation.plugin is plugin and OPTIONS in implementation.argnames:
                index = implementation.argnames.index(OPTIONS)
                others = tuple(name for name in implementation.argnames if name != OPTIONS)
                # this manager is ours alone
                # mypy: pluggy declares both final, though it reads them at each call
                implementation.function = _handed(implementation.function, index, options)  # type: ignore[misc]
                implementation.argnames = others  # type: ignore[misc]


def _handed(function: Callable[..., Any], index: int, options: Any) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return function(*arguments[:index], options, *arguments[index:])

    return call
