"""Compare several validated merges: metrics side by side, the best marked, two of them against each other."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem
from modelmerger import ConfigError, OutputError, Problem, hookimpl, print_json, shown

if TYPE_CHECKING:
    from modelmerger_plugins.report_page.compared import Comparison


@hookimpl
def add_commands(cli: click.Group) -> None:
    """Adds `compare`."""
    cli.add_command(compare)


def _directories(_: click.Context, __: click.Parameter, ___: str) -> list[CompletionItem[str]]:
    return [CompletionItem("", type="dir")]


@click.command()
@click.argument("directories", nargs=-1, metavar="DIR …", shell_complete=_directories)
@click.option("--page", type=click.Path(path_type=Path), help="File to write an HTML page to.")
@click.option("--scatter", metavar="X,Y", help="Two metrics that the page shows against each other.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compare(directories: tuple[str, ...], page: Path | None, scatter: str | None, as_json: bool) -> None:
    """Compare merges by what their validations found: directories that hold a validation.json."""
    from modelmerger_plugins.report_page.compared import axes_of, compare_merges, lines_of

    if len(directories) < 2:
        raise ConfigError("comparing takes two merges at least. Name their directories: modelmerger compare ./a ./b")
    if scatter is not None and page is None:
        raise ConfigError("--scatter is about the page, and none is written. Give --page FILE too, or leave it out")
    if page is not None and page.exists():
        raise OutputError(Problem("exists already. Give another name, or remove it", str(page)))
    found = compare_merges(directories)
    axes = axes_of(found, scatter)
    if page is not None:
        _write(page, found, axes)
    if as_json:
        print_json(found.as_dict())
        return
    for line in lines_of(found):
        click.echo(line)


def _write(page: Path, found: "Comparison", axes: tuple[str, str] | None) -> None:
    from modelmerger_plugins.report_page.compared_page import render

    try:
        with page.open("xb") as opened:
            opened.write(render(found, axes))
    except OSError as error:
        raise OutputError(Problem(f"cannot be written ({error.strerror}). Give another one", str(page))) from error
    click.echo(f"wrote {shown(page)}", err=True)
