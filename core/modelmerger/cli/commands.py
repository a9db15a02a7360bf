"""The commands: those of the core, and those that plugins bring. A mistyped name gets a suggestion."""

from typing import Any

import click

from modelmerger.cli.check import check
from modelmerger.cli.completion import completion
from modelmerger.cli.installed import brought_commands, installed
from modelmerger.cli.merge import merge
from modelmerger.cli.plan import plan
from modelmerger.cli.plugins import plugins
from modelmerger.cli.validate import validate
from modelmerger.cli.verify import verify
from modelmerger.values.text import suggestion

LONGEST = 160
"""Characters of what is listed about a command; a narrow terminal has them in two lines."""


class Commands(click.Group):
    """The core's commands, which are here, and those of plugins, which are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted({*self.commands, *brought_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None where there is none. Raises `MergeError` for one that a plugin gets wrong."""
        own = self.commands.get(cmd_name)
        brought = brought_commands(ctx).get(cmd_name)
        if brought is None:
            return own
        from modelmerger.cli.plugin_commands import plugin_command

        ctx.find_root().obj["provider"] = brought
        return plugin_command(cmd_name, installed(ctx), taken=own is not None)

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
        rows = [(name, command.get_short_help_str(LONGEST)) for name, command in self.commands.items()]
        if brought:
            from modelmerger.cli.plugin_commands import summary

            rows += [(name, summary(p)) for name, p in brought.items() if name not in self.commands]
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


for command in (merge, check, plan, validate, verify, plugins, completion):
    cli.add_command(command)
