"""What the modules of the validation are handed of the plugins."""

from modelmerger.hooks.assembly import Hooks, assemble, plugins_of
from modelmerger.hooks.registry import Registry


def always_on() -> Hooks:
    """The plugins that are always on, with the options that they have by default."""
    return assemble(plugins_of(Registry.installed(), None))
