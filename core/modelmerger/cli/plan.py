"""`modelmerger plan`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelmerger.cli import printed
from modelmerger.cli.given_config import read_changed
from modelmerger.cli.options import CONFIG, DEBUG, JSON, OUTPUT, OVERWRITE, Changes, with_changes

if TYPE_CHECKING:
    from modelmerger.planning.prepared import Prepared
    from modelmerger.planning.rates import Outlook


@click.command()
@CONFIG
@OUTPUT
@OVERWRITE
@with_changes
@JSON
@DEBUG
def plan(config: Path, output: Path | None, overwrite: bool, changes: Changes, as_json: bool) -> None:
    """Print what merging CONFIG would read and write, the memory and disk that it needs, and how long it would take."""
    from modelmerger.engine.merged_checkpoint import MergedCheckpoint
    from modelmerger.planning.prepared import prepare
    from modelmerger.planning.rates import look_ahead
    from modelmerger.refusals import output_of, refuse

    with prepare(*read_changed(config, changes).overwriting(overwrite).resolve(), merged=MergedCheckpoint) as ready:
        outlook = look_ahead(ready.plan, output_of(ready.settings, output))
        _show(ready, outlook, as_json)
        refuse(ready.settings, ready.hooks, output, ready.checkpoints, ready.plan)


def _show(ready: "Prepared", outlook: "Outlook", as_json: bool) -> None:
    if as_json:
        notes = printed.notes_as_data(ready.notes)
        as_data = _with_digest(ready).plan.as_dict()
        click.echo(printed.to_json(as_data | {"notes": notes, "outlook": outlook.as_dict()}))
        return
    for note in ready.notes:
        if note.severity == "warning" and note not in ready.plan.notes:  # which the plan itself shows
            click.echo(f"{note.severity}: {note}", err=True)
    click.echo(f"{ready.plan}\n{outlook}".rstrip())


def _with_digest(ready: "Prepared") -> "Prepared":
    """Imports torch, as the text of a plan, which shows no digest, does not."""
    from modelmerger.engine.arithmetic_digest import with_digest

    return with_digest(ready)
