"""`modelmerger plugins`."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import click

from modelmerger.cli import printed
from modelmerger.cli.installed import installed
from modelmerger.cli.options import DEBUG, JSON
from modelmerger.values.errors import ConfigError
from modelmerger.values.text import shown, suggestion

if TYPE_CHECKING:
    from modelmerger.hooks.providers import Provider
    from modelmerger.hooks.registry import Registry


@click.command()
@click.argument("name", required=False)
@JSON
@DEBUG
def plugins(name: str | None, as_json: bool) -> None:
    """List the installed strategies, validators and plugins, without importing them; or describe the plugin NAME."""
    context = click.get_current_context()
    registry = installed(context)
    if name is not None:
        _describe(registry, name, as_json)
        return
    off = dict(registry.switched_off)
    if as_json:
        rows = [
            {"kind": p.kind, "name": p.name, "distribution": p.distribution, "version": p.version, "on": p not in off}
            for p in _all(registry)
        ]
        click.echo(printed.to_json(rows))
        return
    for line in _listed(registry, getattr(context.find_root().command, "commands", ())):
        click.echo(line)


def _all(registry: "Registry") -> "list[Provider]":
    return [*registry.providers, *registry.never_asked, *dict(registry.switched_off)]


def _listed(registry: "Registry", own_commands: "Collection[str]") -> Iterator[str]:
    """The lines about all plugins, by kind. own_commands: the names of the core's commands."""
    from modelmerger.hooks.providers import PLURALS
    from modelmerger.hooks.sources.found import summary_of

    states = _states(registry, own_commands)
    for kind, plural in PLURALS.items():
        yield f"{plural}:"
        listed = [provider for provider in _all(registry) if provider.kind == kind]
        for provider in listed:
            yield f"  {shown(provider.name):<18} {shown(provider.source)}{states.get(provider, '')}"
            if summary := summary_of(provider.module):
                yield f"      {shown(summary)}"
        if not listed:
            yield "  none"


def _states(registry: "Registry", own_commands: "Collection[str]") -> "dict[Provider, str]":
    """What keeps plugins from being used, in parentheses."""
    from modelmerger.hooks.providers import DEFAULT_VALIDATORS, PLURALS

    clashing = {p for kind in PLURALS for clash in registry.clashes(kind).values() for p in clash}
    clashing |= {p for p in registry.providers if p.kind == "command" and p.name in own_commands}
    never_asked = f"  (only in {DEFAULT_VALIDATORS}, so never asked)"
    return {
        **dict.fromkeys(clashing, "  (clash)"),
        **dict.fromkeys(registry.never_asked, never_asked),
        **{provider: f"  (off: {reason})" for provider, reason in registry.switched_off},
    }


def _describe(registry: "Registry", name: str, as_json: bool) -> None:
    """Prints what plugins of this name are and which options they have. Raises `ConfigError` where there is none."""
    from modelmerger.cli.plugin_details import details_of, lines_of

    found = [provider for provider in _all(registry) if provider.name == name]
    if not found:
        known = sorted({provider.name for provider in _all(registry)})
        near = suggestion(name, known) or ". 'modelmerger plugins' lists those that are installed."
        raise ConfigError(f"no plugin is named '{shown(name)}'{near}")
    off = dict(registry.switched_off)
    details = [details_of(provider, off.get(provider)) for provider in found]
    if as_json:
        click.echo(printed.to_json(details))
        return
    click.echo("\n\n".join("\n".join(lines_of(one)) for one in details))
