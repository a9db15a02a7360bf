"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Any

import click

CONFIG = click.argument("config", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the config: options.scaling_factor=0.3",
)


def _debug(context: click.Context, _: Any, value: bool) -> None:
    if value:
        context.find_root().obj["debug"] = True


DEBUG = click.option("--debug", is_flag=True, help="Show tracebacks.", expose_value=False, callback=_debug)
