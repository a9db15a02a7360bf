"""The installed plugins, looked up once by a command line."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from modelmerger.hooks.providers import Provider
    from modelmerger.hooks.registry import Registry


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
    return {provider.name: provider for provider in installed(context).providers if provider.kind == "command"}
