"""`modelmerger plugins`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from modelmerger.cli import printed
from modelmerger.cli.commands import OWN
from modelmerger.cli.completing.words import plugin_names
from modelmerger.cli.installed import installed
from modelmerger.cli.options import DEBUG, JSON
from modelmerger.values.errors import ConfigError, MergeError, PluginError, Problem, raise_errors
from modelmerger.values.text import amount, shown, suggestion

if TYPE_CHECKING:
    from modelmerger.hooks.providers import Provider
    from modelmerger.hooks.registry import Registry


@click.command()
@click.argument("name", required=False, shell_complete=plugin_names)
@click.option("--check", is_flag=True, help="Import all of them, and say which cannot be used.")
@JSON
@DEBUG
def plugins(name: str | None, check: bool, as_json: bool) -> None:
    """List the installed strategies, validators and plugins, without importing them; or describe the plugin NAME."""
    context = click.get_current_context()
    registry = installed(context)
    if check:
        _check(registry, name, as_json)
        return
    if name is not None:
        _describe(registry, name, as_json)
        return
    off = dict(registry.switched_off)
    if as_json:
        rows = [
            {"kind": p.kind, "name": p.name, "distribution": p.distribution, "version": p.version, "on": p not in off}
            for p in _all(registry)
        ]
        printed.print_json(rows)
        return
    for line in _listed(registry):
        click.echo(line)


def _check(registry: "Registry", name: str | None, as_json: bool) -> None:
    """Imports the plugins that may be used, or those of a name. Raises `PluginError` with those that cannot be."""
    from modelmerger.hooks.assembly import register
    from modelmerger.hooks.plugins import load
    from modelmerger.hooks.providers import PLURALS

    problems: list[Problem] = []
    asked = [provider for provider in registry.providers if name in (None, provider.name)]
    if not asked:
        raise ConfigError(f"no plugin is named '{shown(name)}'. 'modelmerger plugins' lists those that are installed.")
    for provider in asked:
        try:
            register([load(provider)])
        except MergeError as error:
            problems += error.problems
    for kind in PLURALS:
        try:
            registry.of_kind(kind)
        except ConfigError as error:
            problems += error.problems
    raise_errors(problems, PluginError)
    if as_json:
        printed.print_json({"usable": [str(provider) for provider in asked]})
        return
    click.echo(f"{amount(len(asked), 'plugin')} can be used")


def _all(registry: "Registry") -> "list[Provider]":
    return [*registry.providers, *registry.never_asked, *dict(registry.switched_off)]


def _listed(registry: "Registry") -> Iterator[str]:
    """The lines about all plugins, by kind."""
    from modelmerger.hooks.providers import PLURALS
    from modelmerger.hooks.sources.found import summary_of

    states = _states(registry)
    for kind, plural in PLURALS.items():
        yield f"{plural}:"
        listed = [provider for provider in _all(registry) if provider.kind == kind]
        for provider in listed:
            yield f"  {shown(provider.name):<18} {shown(provider.source)}{states.get(provider, '')}"
            if summary := summary_of(provider.module):
                yield f"      {shown(summary)}"
        if not listed:
            yield "  none"


def _states(registry: "Registry") -> "dict[Provider, str]":
    """What keeps plugins from being used, in parentheses."""
    from modelmerger.hooks.providers import DEFAULT_VALIDATORS, PLURALS

    clashing = {p for kind in PLURALS for clash in registry.clashes(kind).values() for p in clash}
    clashing |= {p for p in registry.providers if p.kind == "command" and p.name in OWN}
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
        printed.print_json(details)
        return
    click.echo("\n\n".join("\n".join(lines_of(one)) for one in details))
