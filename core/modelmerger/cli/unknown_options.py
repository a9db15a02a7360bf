"""An option that no command has: plugins may know what stands here in its place."""

import click

from modelmerger.cli.installed import installed


def explained(error: click.NoSuchOption, context: click.Context) -> click.UsageError | None:
    """The error in a plugin's words; None where none knows the option. Raises `PluginError` for a wrong answer."""
    from modelmerger.hooks.assembly import assemble
    from modelmerger.hooks.plugins import load

    plugins = [plugin for plugin in map(load, installed(context).always_on()) if "explain_option" in plugin.hooks]
    calls = assemble(plugins).models.calls
    said = calls.ask_first("explain_option", option=error.option_name)
    if said is not None and not isinstance(said, str):
        raise calls.wrong_answer("explain_option", said, "a sentence or None")
    return click.UsageError(said, error.ctx) if said else None
