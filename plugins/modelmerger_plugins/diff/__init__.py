"""Compare two models: which tensors changed and how far, layer by layer, and what else differs."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem
from modelmerger import OutputError, Problem, hookimpl, print_json, shown

if TYPE_CHECKING:
    from modelmerger_plugins.diff.differences import Differences


@hookimpl
def add_commands(cli: click.Group) -> None:
    """Adds `diff`."""
    cli.add_command(diff)


def _models(_: click.Context, __: click.Parameter, ___: str) -> list[CompletionItem[str]]:
    """Directories and manifests, which the shell lists."""
    return [CompletionItem("", type="file")]


@click.command()
@click.argument("a", shell_complete=_models)
@click.argument("b", shell_complete=_models)
@click.option("--base", shell_complete=_models, help="The base model of adapters, where they name none that is there.")
@click.option("--page", type=click.Path(path_type=Path), help="File to write an HTML page to.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def diff(a: str, b: str, base: str | None, page: Path | None, as_json: bool) -> None:
    """Compare the model B with the model A: directories, Hub ids, or manifests of merges (modelmerger.json)."""
    from modelmerger_plugins.diff.differences import compare
    from modelmerger_plugins.diff.table import lines_of

    if page is not None and page.exists():
        raise OutputError(Problem("exists already. Give another name, or remove it", str(page)))
    with _progress() as advance:
        found = compare(a, b, base, advance)
    if page is not None:
        _write(page, found)
    if as_json:
        print_json(found.as_dict())
        return
    for line in lines_of(found):
        click.echo(line)


def _write(page: Path, found: "Differences") -> None:
    from modelmerger_plugins.diff.page import render

    try:
        with page.open("xb") as opened:
            opened.write(render(found))
    except OSError as error:
        raise OutputError(Problem(f"cannot be written ({error.strerror}). Give another one", str(page))) from error
    click.echo(f"wrote {shown(page)}", err=True)


class _progress:  # noqa: N801 (a context manager)
    """Shows on a terminal how much was compared."""

    def __enter__(self) -> Callable[[int, int], None]:
        import sys

        self._bar = None
        if not sys.stderr.isatty():
            return lambda _, __: None
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("comparing"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn()
        bar = self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task("", total=None)
        bar.start()
        return lambda done, total: bar.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
