"""pluggy's manager, which looks for hooks among the names that carry its mark, and not among all names of a module."""

import inspect
from typing import Any

import pluggy

from modelmerger.hooks.markers import MARK, PROJECT, SPECIFIED
from modelmerger.hooks.specs import HOOKS, SPECIFICATIONS


class Manager(pluggy.PluginManager):
    """A manager that knows all hooks.

    pluggy looks at each name of a module as it would at a property, which nobody may evaluate. In a module there are
    none, and a start spends a hundredth of a second less without that.
    """

    def __init__(self) -> None:
        super().__init__(PROJECT)
        for specification in SPECIFICATIONS:
            self.add_hookspecs(specification)

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> Any:
        """The options of a hook; None where the name is that of something else."""
        return getattr(getattr(module_or_class, name), SPECIFIED) if name in HOOKS else None

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """The options of a plugin's answer to a hook; None where the name is that of something else."""
        if inspect.ismodule(plugin) and not hasattr(getattr(plugin, name, None), MARK):
            return None
        return super().parse_hookimpl_opts(plugin, name)
