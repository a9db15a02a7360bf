"""The commands, as a group that suggests one where a name is mistyped."""

from typing import Any

import click

from modelmerger.cli.check import check
from modelmerger.cli.merge import merge
from modelmerger.cli.plan import plan
from modelmerger.cli.plugins import plugins
from modelmerger.cli.validate import validate
from modelmerger.cli.verify import verify
from modelmerger.values.text import suggestion


class Suggesting(click.Group):
    """A group that suggests a command where a name is mistyped."""

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        """Finds the command. Raises `UsageError` with the nearest where there is none of that name."""
        if args and self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            known = self.list_commands(context)
            raise click.UsageError(
                f"no command is named '{args[0]}'{suggestion(args[0], known) or ' (' + ', '.join(known) + ')'}"
            )
        return super().resolve_command(context, args)


@click.group(
    cls=Suggesting,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="modelmerger", prog_name="modelmerger", message="%(prog)s %(version)s")
def cli() -> None:
    """Merge language models and adapters, safely and in constant memory."""


for command in (merge, check, plan, validate, verify, plugins):
    cli.add_command(command)
