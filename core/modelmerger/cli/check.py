"""`modelmerger check`."""

from pathlib import Path

import click

from modelmerger.cli import printed
from modelmerger.cli.given_config import read_changed
from modelmerger.cli.options import CONFIG, DEBUG, JSON, KEEP_EXTRA, OUTPUT, OVERWRITE, Changes, with_changes
from modelmerger.cli.streams import say


@click.command()
@CONFIG
@OUTPUT
@OVERWRITE
@KEEP_EXTRA
@with_changes
@JSON
@DEBUG
def check(
    config: Path, output: Path | None, overwrite: bool, keep_extra: bool, changes: Changes, as_json: bool
) -> None:
    """Say whether CONFIG can be merged. Reads headers and JSON only."""
    from modelmerger.run import check as check_merge

    notes = check_merge(
        *read_changed(config, changes).asking_for(overwrite=overwrite, keep_extra=keep_extra).resolve(), output=output
    )
    if as_json:
        printed.print_json({"compatible": True, "notes": printed.notes_as_data(notes)})
        return
    for note in notes:
        say(f"{note.severity}: {note}")
    click.echo("the models can be merged")
