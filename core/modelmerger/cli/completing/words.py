"""The words that arguments and options may be: config files, keys of a config and their values, names of plugins."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelmerger.cli.installed import installed

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PART, PATH = "part", "path"
"""Kinds of words beside click's: one that goes on, and a file or folder."""
CHOSEN = "strategy"
CONFIGS = (".yaml", ".yml", ".json")


class ConfigFile(click.Path):
    """The path of a config: files that may be one are proposed, and folders."""

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 (click gives it by name)
        param: click.Parameter,  # noqa: ARG002 (as well)
        incomplete: str,
    ) -> "list[CompletionItem[str]]":
        """Files and folders that begin so, in the order of their names."""
        folder = incomplete[: incomplete.rfind("/") + 1]
        begun = incomplete.removeprefix(folder)
        try:
            entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name)
        except OSError:  # there is no such folder
            return []
        return [
            _item(folder + entry.name + "/" * entry.is_dir(), type=PATH)
            for entry in entries
            if (entry.name.startswith(begun) if begun else entry.name[0] != ".")
            and (entry.is_dir() or entry.name.endswith(CONFIGS))
        ]


def directories(_: click.Context, __: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Directories, which the shell lists."""
    return [_item(incomplete, type="dir")]


def plugin_names(context: click.Context, _: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """The names of what is installed."""
    names = sorted({provider.name for provider in installed(context).providers})
    return [_item(name) for name in names if name.startswith(incomplete)]


def settings(context: click.Context, _: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Keys of the config as `--set` takes them, one part of a key after the other; behind `=`, their values."""
    from modelmerger.cli.completing.keys import keys_of_config, values_of

    known = keys_of_config(_given(context), installed(context))
    key, equals, value = incomplete.partition("=")
    if equals:
        return [_item(f"{key}={one}") for one in values_of(known.get(key, {})) if one.startswith(value)]
    found: dict[str, CompletionItem[str]] = {}
    for name, schema in known.items():
        if name.startswith(incomplete):
            dot = name.find(".", len(incomplete))
            shown, told = (f"{name}=", schema.get("description")) if dot < 0 else (name[: dot + 1], None)
            found.setdefault(shown, _item(shown, type=PART, help=told))
    return list(found.values())


def _given(context: click.Context) -> Mapping[str, Any]:
    """The config on the command line, with the strategy that `--set` gives; empty where there is none to read."""
    from modelmerger.config.reading import read_config
    from modelmerger.values.errors import MergeError

    config: Path | None = context.params.get("config")
    try:
        given = {} if config is None else read_config(config, installed(context)).data
    except MergeError:
        given = {}
    told = dict(change.split("=", 1) for change in context.params.get("settings") or () if "=" in change)
    return given | {key: value for key, value in told.items() if key == CHOSEN}


def _item(word: str, **told: Any) -> "CompletionItem[str]":
    """A word. What click has for it is imported where a shell asks for words, and not for every command."""
    from click.shell_completion import CompletionItem

    return CompletionItem(word, **told)
