"""The plugins that read configs of other tools, asked one after the other."""

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from modelmerger.hooks.answers import is_list_of
from modelmerger.hooks.assembly import register
from modelmerger.hooks.calls import Calls
from modelmerger.hooks.plugins import Plugin, load
from modelmerger.hooks.providers import Provider
from modelmerger.values.errors import PluginError, Problem
from modelmerger.values.read_config import ReadConfig

HOOK = "read_config"


@frozen(eq=False)
class Readers:
    """The readers that are asked what a config file means."""

    calls: Calls
    """The readers, registered."""
    plugins: Sequence[Plugin]
    """In the order in which they are asked."""

    def ask(self, plugin: Plugin, text: str, source: str, options: Any) -> ReadConfig | None:
        """What a reader makes of a file; None where it is of another kind. options: an instance of its options."""
        found = self.calls.ask_one(HOOK, plugin.key, text=text, source=source, options=options)
        if found is None:
            return None
        if not isinstance(found, ReadConfig) or not is_list_of(Problem, found.notes):
            raise self.calls.wrong_answer(HOOK, found, "a ReadConfig or None", plugin.key)
        return found


def load_readers(providers: Sequence[Provider]) -> Readers:
    """Imports the readers. Raises `PluginError` where one is not what readers are."""
    plugins = {plugin.key: plugin for plugin in map(load, sorted(providers, key=lambda p: (not p.built_in, p.name)))}
    calls = register(list(plugins.values()))
    wrappers = [i for i in calls.manager.hook.read_config.get_hookimpls() if i.wrapper or i.hookwrapper]
    if wrappers:
        raise PluginError(f"{calls.providers[wrappers[0].plugin_name]} wraps {HOOK}, which cannot be wrapped.")
    return Readers(calls, [plugins[key] for key in calls.plugins_with(HOOK)])
