"""`modelmerger plugins`."""

import click

from modelmerger.cli import printed
from modelmerger.cli.installed import installed
from modelmerger.cli.options import DEBUG, JSON
from modelmerger.values.text import shown


@click.command()
@JSON
@DEBUG
def plugins(as_json: bool) -> None:
    """List the installed strategies, validators and plugins. Imports none of them."""
    from modelmerger.hooks.providers import DEFAULT_VALIDATORS, PLURALS

    context = click.get_current_context()
    registry = installed(context)
    off, never_asked = dict(registry.switched_off), registry.never_asked
    providers = [*registry.providers, *never_asked, *off]
    clashing = {p for kind in PLURALS for clash in registry.clashes(kind).values() for p in clash}
    own = getattr(context.find_root().command, "commands", ())
    clashing |= {p for p in registry.providers if p.kind == "command" and p.name in own}
    if as_json:
        rows = [
            {"kind": p.kind, "name": p.name, "distribution": p.distribution, "version": p.version, "on": p not in off}
            for p in providers
        ]
        click.echo(printed.to_json(rows))
        return
    for kind, plural in PLURALS.items():
        click.echo(f"{plural}:")
        listed = [provider for provider in providers if provider.kind == kind]
        for provider in listed:
            state = f"  (off: {off[provider]})" if provider in off else "  (clash)" if provider in clashing else ""
            state = state or (f"  (only in {DEFAULT_VALIDATORS}, so never asked)" if provider in never_asked else "")
            click.echo(f"  {shown(provider.name):<18} {shown(provider.source)}{state}")
        if not listed:
            click.echo("  none")
