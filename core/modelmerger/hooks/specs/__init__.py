"""The hooks, which are everything a plugin can do: a module for each subject, in the order in which a merge calls them.

A plugin is a module (or an instance of a class with `eq=False`) whose functions carry `@hookimpl` and the name of a
hook. A function may take any subset of the hook's arguments, in any order; each of them is handed over, whether it has
a default or not. Attributes of the module declare the rest. They are optional, except for `traits` and `metrics`:

`Options`: an attrs class. Its fields are keys of the config's `options`, or of `validation` for a validator, and have
defaults (a strategy's may lack them). Every hook hands a plugin an instance of its own class as `options`.
`ReadOptions`, for a reader of configs: an attrs class. Its fields are keys of `--read`, and have defaults.
`ModelOptions`, for a strategy: an attrs class whose fields are keys of each entry of the config's `models`.
`sections`: a sequence of `Section`, each of which is a top-level key of the config.
`traits`, for a strategy: a `Traits`.
`metrics`, for a validator: a mapping from the metrics that it can find to `"lower"` or `"higher"`, whichever is better.
`within_merges`: which of its hooks that are asked in turn (`view_models`, `adjust_config`) are asked for merges within
the merge too. Without it, they are asked once, for the outermost merge.
`hooks_version`: the version of the hooks that the plugin is written for. Any other than `HOOKS_VERSION` is refused.
"""

from types import MappingProxyType
from typing import Any

from modelmerger.hooks.markers import SPECIFIED
from modelmerger.hooks.specs import doors, measuring, models, output, strategies, validation

SPECIFICATIONS = (doors, models, strategies, measuring, output, validation)
"""The modules of hooks, in the order in which a run calls them."""


def _specified(module: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if hasattr(value, SPECIFIED)}


HOOKS = MappingProxyType({name: spec for module in SPECIFICATIONS for name, spec in _specified(module).items()})
"""Every hook by its name, in the order of the documentation."""
STRATEGY_HOOKS = frozenset(_specified(measuring) | _specified(strategies))
"""The hooks that only a strategy has. They get its options from the caller."""
