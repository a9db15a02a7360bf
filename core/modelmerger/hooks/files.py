"""Files that plugins bring, and folders that they put weights into: with plain names, each of one plugin."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelmerger.hooks.answers import are_contents
from modelmerger.hooks.calls import Calls
from modelmerger.hooks.faults import with_way_out
from modelmerger.values.errors import PluginError
from modelmerger.values.plain_names import is_plain_path


def gather_files(
    calls: Calls,
    hook: str,
    reserved: Mapping[str, str],
    allowed: Callable[[str], bool] = is_plain_path,
    kinds: tuple[type, ...] = (bytes,),
    without: Callable[[PluginError], None] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """The answers of all plugins to a hook that asks for files: content by name.

    reserved: names that are taken, and who has them. allowed: whether a name may be used. kinds: what a content may be.
    without: what is told that the files of a plugin are left out; None: they must not be. Raises `PluginError`.
    """
    owners, files = dict(reserved), dict[str, Any]()
    for plugin in calls.plugins_with(hook):
        provider = str(calls.providers[plugin])
        try:
            found = calls.ask_one(hook, plugin, **arguments)
            found = dict(found) if isinstance(found, Iterator) else found
            if not are_contents(found):
                raise calls.wrong_answer(hook, found, "contents by file name", plugin)
            for name, content in (found or {}).items():
                if not allowed(name) or not isinstance(content, kinds):
                    message = f"{provider} wants to write {name!r}, which is not a plain file name with bytes."
                    raise PluginError(with_way_out(message, [calls.providers[plugin]]))
                if name in owners:
                    message = f"{name} is written twice: by {owners[name]} and by {provider}."
                    raise PluginError(with_way_out(message, [calls.providers[plugin]]))
        except PluginError as error:
            if without is None:
                raise
            without(error)
            continue
        files |= found or {}
        owners |= dict.fromkeys(found or {}, provider)
    return files


def gather_folders(calls: Calls, hook: str, **arguments: Any) -> dict[str, str]:
    """The answers of all plugins to a hook that puts tensors into folders: what their names begin with → the folder.

    Raises `PluginError` for a folder that is not plain, or is another prefix's, and for prefixes of which one begins
    with the other.
    """
    folders, owners = dict[str, str](), dict[str, str]()
    for plugin in calls.plugins_with(hook):
        found = calls.ask_one(hook, plugin, **arguments)
        if found is None:
            continue
        if not isinstance(found, Mapping) or not all(map(_is_folder, found.items())):
            raise calls.wrong_answer(hook, found, "None, or plain folders by what names begin with", plugin)
        provider = str(calls.providers[plugin])
        for prefix, folder in found.items():
            for other, of_other in folders.items():
                if folder == of_other or prefix.startswith(other) or other.startswith(prefix):
                    message = f"{hook} puts {prefix!r} into {folder}, and {other!r} goes into {of_other}, says"
                    message = f"{provider}: {message} {owners[other]}."
                    raise PluginError(with_way_out(message, [calls.providers[plugin]]))
            folders[prefix], owners[prefix] = folder, provider
    return folders


def _is_folder(entry: tuple[Any, Any]) -> bool:
    prefix, folder = entry
    return isinstance(prefix, str) and prefix != "" and isinstance(folder, str) and is_plain_path(folder)
