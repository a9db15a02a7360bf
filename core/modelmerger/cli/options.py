"""Arguments and options that several commands share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from modelmerger.cli.completing.words import ConfigFile, settings


class _Folder(click.Path):
    """A folder, and not the one where the command runs by an empty text, as of a variable that is not set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises `BadParameter` for an empty text."""
        if value == "":
            self.fail("it is empty, and a directory is wanted", param, ctx)
        return super().convert(value, param, ctx)


CONFIG = click.argument("config", type=ConfigFile(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
OUTPUT = click.option(
    "--output", type=_Folder(path_type=Path), help="Directory of the merged model; wins over output_path."
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an output directory that an earlier merge wrote.")
KEEP_EXTRA = click.option(
    "--keep-extra", is_flag=True, help="With --overwrite: keep what no merge wrote in the new output."
)
RECORD_PATHS = click.option(
    "--record-paths", is_flag=True, help="Keep local paths in model card, manifest and reports."
)
_SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the config: options.scaling_factor=0.3",
    shell_complete=settings,
)
_READ = click.option(
    "--read",
    "told",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the plugin that reads another tool's config.",
)
_PLUGIN = click.option(
    "--plugin",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A strategy, validator or other plugin in a Python file, under the file's name.",
)
_STRICT = click.option("--strict", is_flag=True, help="Take warnings for errors.")


@frozen(eq=False, repr=False)
class Changes:
    """What the command line says beside a config file."""

    settings: tuple[str, ...] = ()
    """Values of `--set`."""
    told: tuple[str, ...] = ()
    """Values of `--read`."""
    files: tuple[Path, ...] = ()
    """Values of `--plugin`."""
    strict: bool = False
    """Whether `--strict` is given."""


def with_changes(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options about its config, as an argument `changes`."""

    @_SET
    @_READ
    @_PLUGIN
    @_STRICT
    @functools.wraps(command)
    def changed(
        *arguments: Any,
        settings: tuple[str, ...],
        told: tuple[str, ...],
        files: tuple[Path, ...],
        strict: bool,
        **others: Any,
    ) -> None:
        command(*arguments, changes=Changes(settings, told, files, strict), **others)

    return changed


def _debug(context: click.Context, _: Any, value: bool) -> None:
    if value:
        context.find_root().obj["debug"] = True


_SHOW: Any = {"is_flag": True, "help": "Show tracebacks.", "expose_value": False, "callback": _debug}
DEBUG = click.option("--debug", **_SHOW)


def add_debug(command: click.Command) -> None:
    """Gives a command of a plugin the option `--debug`, unless it has one."""
    if not any("--debug" in parameter.opts for parameter in command.params):
        command.params.append(click.Option(["--debug"], **_SHOW))
