"""Find numbers of a merge on text: weights and options that a config leaves open."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from modelmerger import ThresholdError, hookimpl, print_json

if TYPE_CHECKING:
    from modelmerger_plugins.tune.asked import Preparing, Progress
    from modelmerger_plugins.tune.tuner import MergeTuner


@hookimpl
def add_commands(cli: click.Group) -> None:
    """Adds `tune`."""
    cli.add_command(tune)


@click.command("tune")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), help="Directory of the merged model, in place of output_path."
)
@click.option("--resume", is_flag=True, help="Go on with the study of a search that was ended.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Measure so many vectors at a time, each in a process of its own, where the search only tries them.",
)
@click.option(
    "--choose", type=click.IntRange(0), metavar="STEP", help="Take the numbers of this step of the study, not the best."
)
@click.option("--no-merge", is_flag=True, help="Write tuned.yaml, and merge nothing.")
@click.option("--plan", is_flag=True, help="Do one step, say what memory and time the search needs, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def tune(
    config: Path,
    output: Path | None,
    resume: bool,
    jobs: int,
    choose: int | None,
    no_merge: bool,
    plan: bool,
    as_json: bool,
) -> None:
    """Find the numbers that CONFIG leaves open with {tune: [low, high]}, and merge with them."""
    from modelmerger import map_from

    from modelmerger_plugins.tune.tuner import MergeTuner

    if plan and (resume or no_merge):
        raise click.UsageError("--plan searches nothing, so --resume and --no-merge have no effect with it.")
    map_from()
    tuner = MergeTuner(config)
    if plan:
        found = tuner.plan()
        print_json(found.as_dict()) if as_json else click.echo(str(found))
        return
    with _told_how_to_go_on(tuner, output):
        with _bar() as (progress, preparing):
            report = tuner.tune(output, resume=resume, jobs=jobs, choose=choose, progress=progress, preparing=preparing)
        if report.feasible and not no_merge:
            tuner.merge()
            report = tuner.report or report
    if as_json:
        print_json(report.as_dict())
    else:
        click.echo(str(report))
    if not report.feasible:
        raise ThresholdError(
            f"no numbers met all constraints, so nothing is merged: {report.folder} has the nearest. "
            "Loosen them, or raise tune.search.steps."
        )


@contextlib.contextmanager
def _told_how_to_go_on(tuner: "MergeTuner", output: Path | None) -> Iterator[None]:
    """A signal that ends the program says what is left, and what to do."""
    try:
        yield
    except KeyboardInterrupt as signal:
        if signal.args or not (left := tuner.left(output)):
            raise
        raise type(signal)(f"interrupted. {left}") from None


@contextlib.contextmanager
def _bar() -> "Iterator[tuple[Progress, Preparing]]":
    """A bar on stderr while the context lasts, for the search and for what comes before it; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield (lambda _, __, ___: None), (lambda _, __: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("tuning", total=None)

        def progress(done: int, total: int, value: float) -> None:
            bar.update(task, description=f"tuning, objective {value:.4f}", completed=done, total=total)

        def preparing(done: int, total: int) -> None:
            bar.update(task, description="preparing tensors", completed=done, total=total)

        yield progress, preparing
