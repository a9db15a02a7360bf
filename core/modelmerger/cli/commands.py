"""The commands: those of the core, and those that plugins bring. A mistyped name gets a suggestion."""

from importlib import import_module
from typing import Any

import click

from modelmerger.cli.installed import brought_commands, installed
from modelmerger.values.text import suggestion

OWN = ("merge", "check", "plan", "validate", "verify", "plugins", "completion")
"""The core's commands, each of which has the name of its module."""
LONGEST = 160
"""Characters of what is listed about a command; a narrow terminal has them in two lines."""


class Commands(click.Group):
    """The core's commands and those of plugins, all of which are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted({*OWN, *brought_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None where there is none. Raises `MergeError` for one that a plugin gets wrong."""
        brought = brought_commands(ctx).get(cmd_name)
        if brought is None:
            return _own_command(cmd_name) if cmd_name in OWN else None
        from modelmerger.cli.plugin_commands import plugin_command

        ctx.find_root().obj["provider"] = brought
        return plugin_command(cmd_name, installed(ctx), taken=cmd_name in OWN)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Finds the command. Raises `UsageError` with the nearest where there is none of that name."""
        if not args or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        command = self.get_command(ctx, args[0])
        if command is None:
            known = self.list_commands(ctx)
            raise click.UsageError(
                f"no command is named '{args[0]}'{suggestion(args[0], known) or ' (' + ', '.join(known) + ')'}"
            )
        return args[0], command, args[1:]

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            from modelmerger.cli.unknown_options import explained

            if (told := explained(error, ctx)) is None:
                raise
            raise told from error
        except BaseException:
            provider = ctx.find_root().obj.get("provider")
            if provider is None:
                raise
            from modelmerger.cli.plugin_commands import blaming

            with blaming(provider):
                raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands, without importing those of plugins."""
        brought = brought_commands(ctx)
        rows = [(name, _own_command(name).get_short_help_str(LONGEST)) for name in OWN]
        if brought:
            from modelmerger.cli.plugin_commands import summary

            rows += [(name, summary(p)) for name, p in brought.items() if name not in OWN]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))


@click.group(
    cls=Commands,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="modelmerger", prog_name="modelmerger", message="%(prog)s %(version)s")
def cli() -> None:
    """Merge language models and adapters, safely and in constant memory."""


def _own_command(name: str) -> click.Command:
    command: click.Command = getattr(import_module(f"modelmerger.cli.{name}"), name)
    return command
