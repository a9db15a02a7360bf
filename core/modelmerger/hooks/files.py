"""Files that plugins bring: content by name, with plain names, each brought by one plugin."""

from collections.abc import Callable, Mapping
from typing import Any

from modelmerger.hooks.answers import are_contents
from modelmerger.hooks.calls import Calls
from modelmerger.values.errors import PluginError
from modelmerger.values.plain_names import is_plain_path


def gather_files(
    calls: Calls,
    hook: str,
    reserved: Mapping[str, str],
    allowed: Callable[[str], bool] = is_plain_path,
    kinds: tuple[type, ...] = (bytes,),
    **arguments: Any,
) -> dict[str, Any]:
    """The answers of all plugins to a hook that asks for files: content by name.

    reserved: names that are taken, and who has them. allowed: whether a name may be used. kinds: what a content may be.
    Raises `PluginError`.
    """
    owners, files = dict(reserved), dict[str, Any]()
    for plugin, found in calls.ask_each(hook, **arguments):
        if not are_contents(found):
            raise calls.wrong_answer(hook, found, "contents by file name", plugin)
        provider = str(calls.providers[plugin])
        for name, content in (found or {}).items():
            if not allowed(name) or not isinstance(content, kinds):
                raise PluginError(f"{provider} wants to write {name!r}, which is not a plain file name with bytes.")
            if name in owners:
                raise PluginError(f"{name} is written twice: by {owners[name]} and by {provider}.")
            files[name], owners[name] = content, provider
    return files
