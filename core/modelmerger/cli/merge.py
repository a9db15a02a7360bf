"""`modelmerger merge`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelmerger.cli import printed
from modelmerger.cli.given_config import read_changed
from modelmerger.cli.options import (
    CONFIG,
    DEBUG,
    JSON,
    KEEP_EXTRA,
    OUTPUT,
    OVERWRITE,
    RECORD_PATHS,
    Changes,
    with_changes,
)
from modelmerger.cli.streams import say
from modelmerger.values.errors import ConfigError
from modelmerger.values.text import shown

if TYPE_CHECKING:
    from modelmerger.values.work.part import Part


@click.command()
@CONFIG
@OUTPUT
@OVERWRITE
@KEEP_EXTRA
@RECORD_PATHS
@click.option("--part", metavar="I/N", help="Make this share of the merge alone, as 3/16, and publish nothing.")
@click.option("--reread", is_flag=True, help="Read again what parts have made, though they ended well.")
@with_changes
@JSON
@DEBUG
def merge(
    config: Path,
    output: Path | None,
    overwrite: bool,
    keep_extra: bool,
    record_paths: bool,
    part: str | None,
    reread: bool,
    changes: Changes,
    as_json: bool,
) -> None:
    """Merge the models of CONFIG (YAML or JSON) into a new directory."""
    from modelmerger.engine.memory.resident import map_from
    from modelmerger.progress import show_progress, show_tasks
    from modelmerger.run import Watch, run_merge

    share = _share(part, reread) if part is not None else None
    asked = read_changed(config, changes).asking_for(
        overwrite=overwrite, keep_extra=keep_extra, record_paths=record_paths
    )
    data = asked.given.data
    target = output or (Path(data["output_path"]) if isinstance(data.get("output_path"), str) else None)
    click.get_current_context().find_root().obj["target"] = target
    map_from()
    with show_progress("merging") as progress:
        settings, hooks = asked.resolve()
        watch = Watch(progress=progress)
        if share is not None:
            from modelmerger.run_part import run_part

            made = run_part(settings, hooks, share, output, watch)
        else:
            report = run_merge(settings, hooks, output, watch, reread=reread)
    if share is not None:
        printed.print_json(made.as_dict()) if as_json else click.echo(str(made))
        return
    options = settings.options
    if options.log_level is None and not options.verbose:  # else the logger says what is asked for
        for note in (note for note in report.notes if note.severity == "note"):
            say(f"note: {note}")
    if not as_json:
        click.echo(str(report))
    if settings.validation is not None:
        from modelmerger.validation.running import validate_published

        with show_tasks("validating") as tasks:
            report = validate_published(report, settings, hooks, tasks)
    if as_json:
        printed.print_json(report.as_dict())
    if report.validation is not None:
        printed.show_validation(
            report.validation, as_json, f"the merged model is at {shown(report.output)}; its validation", saved=True
        )


def _share(part: str, reread: bool) -> "Part":
    from modelmerger.values.work.part import Part

    share = Part.parsed(part)
    if reread:
        raise ConfigError("--reread is for the merge that publishes what parts made, and not for a part. Leave it out.")
    return share
