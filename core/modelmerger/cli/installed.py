"""The installed plugins, looked up once by a command line, and not at all where nobody asks for one."""

import os
import sys
from glob import iglob
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from modelmerger.hooks.providers import Provider
    from modelmerger.hooks.registry import Registry

_HEADING = b"[modelmerger.commands]"


def installed(context: click.Context) -> "Registry":
    """The plugins that are installed. None is imported."""
    state = context.find_root().obj
    if state.get("registry") is None:
        from modelmerger.hooks.registry import Registry

        state["registry"] = Registry.installed()
    registry: Registry = state["registry"]
    return registry


def brought_commands(context: click.Context) -> "dict[str, Provider]":
    """The commands that plugins bring, by name."""
    if context.find_root().obj.get("registry") is None and not _any_command():
        return {}
    return {provider.name: provider for provider in installed(context).providers if provider.kind == "command"}


def _any_command() -> bool:
    """Whether a distribution may bring a command. Reading all metadata would take `--help` half as long again."""
    for place in sys.path:
        if os.path.isfile(place):  # a zip file, into which only reading the metadata looks
            return True
        for path in iglob(os.path.join(place or ".", "*-info", "entry_points.txt")):
            with open(path, "rb") as file:
                if _HEADING in file.read():
                    return True
    return False
