"""The hooks: everything a plugin can do, by what it is about, and in each module in the order in which a merge calls them.

A plugin is a module (or an instance of a class with `eq=False`) whose functions carry `@hookimpl` and the name of a hook.
It may take any subset of a hook's arguments, in any order, and gives none of them a default. What it says of itself are
attributes of the module, all of them optional but `traits` and `metrics`:

`Options`: an attrs class, each field with a default. For a strategy and a plugin that is always on, keys of the config's
`options`; for a validator, keys of `validation`. Every hook hands a plugin its own, as `options`.
`ModelOptions`: of a strategy; an attrs class whose fields are keys of each of the config's `models`.
`sections`: `Section`s, each a top-level key of the config that this plugin obeys.
`traits`: of a strategy, a `Traits`. `metrics`: of a validator, what it finds and which way each is better.
`hooks_version`: another number than `HOOKS_VERSION` and the plugin is refused with a sentence.
"""

from types import MappingProxyType
from typing import Any

from modelmerger.hooks.markers import PROJECT
from modelmerger.hooks.specs import models, output, strategies, validation

SPECIFICATIONS = (models, strategies, output, validation)
"""The modules, in the order in which a run needs them."""


def _specified(module: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if hasattr(value, f"{PROJECT}_spec")}


HOOKS = MappingProxyType({name: spec for module in SPECIFICATIONS for name, spec in _specified(module).items()})
"""Every hook by name, in the order in which a run calls them."""
STRATEGY_HOOKS = frozenset(_specified(strategies))
"""Those that only a strategy answers, and that get its options from the caller."""
