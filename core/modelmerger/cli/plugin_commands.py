"""Commands that plugins bring: listed by their entry points, imported when they are called, and to blame by name."""

import contextlib
from collections.abc import Iterator

import click
import importlib_metadata

from modelmerger.cli.options import add_debug
from modelmerger.hooks.providers import BUILT_IN, DISABLE, GROUPS, Kind, Provider
from modelmerger.hooks.registry import Registry
from modelmerger.values.errors import ConfigError, MergeError, PluginError
from modelmerger.values.text import said_by, shown

KIND: Kind = "command"


def plugin_command(name: str, registry: Registry, *, taken: bool) -> click.Command | None:
    """The command of this name, imported; None where no plugin brings one. taken: whether the core has one.

    Raises `ConfigError` where two bring it, and `PluginError` for a plugin that does not add what it declares.
    """
    found = [provider for provider in registry.providers if (provider.kind, provider.name) == (KIND, name)]
    if not found:
        return None
    if taken:
        own = f"{BUILT_IN} {importlib_metadata.version(BUILT_IN)}"
        sources = " and by ".join([*(provider.source for provider in found), own])
        remedy = f"uninstall one of them or set {DISABLE}={found[0].distribution}"
        raise ConfigError(f"command '{name}' is provided twice: by {sources}; {remedy}.")
    return _load(registry.find(KIND, name), registry)


def summary(provider: Provider) -> str:
    """A line about a command that is not imported: the first one of its module."""
    from modelmerger.hooks.sources.found import summary_of

    return shown(summary_of(provider.module), 160) or f"From {provider.source}."


@contextlib.contextmanager
def blaming(provider: Provider) -> Iterator[None]:
    """Whatever a command raises in here, except `MergeError` and what click knows, becomes an error that names it."""
    try:
        yield
    except (MergeError, click.ClickException, click.exceptions.Exit, BrokenPipeError):
        raise
    except click.Abort:
        raise KeyboardInterrupt from None
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            raise click.exceptions.Exit(error.code or 0) from None
        raise PluginError(f"{provider} raised {type(error).__name__}: {said_by(error)}") from error


def _load(provider: Provider, registry: Registry) -> click.Command:
    from modelmerger.hooks.assembly import register
    from modelmerger.hooks.plugins import load

    plugin = load(provider)
    added = click.Group()
    register([plugin]).ask_one("add_commands", plugin.key, cli=added)
    source = provider.distribution, provider.target
    declared = {p.name for p in registry.providers if p.kind == KIND and (p.distribution, p.target) == source}
    if undeclared := sorted(set(added.commands) - declared):
        raise PluginError(f"{provider} adds '{undeclared[0]}', which is no entry point of {GROUPS[KIND]}.")
    command = added.commands.get(provider.name)
    if command is None:
        raise PluginError(f"{provider} does not add the command '{provider.name}'.")
    add_debug(command)
    return command
