"""`modelmerger plan`."""

from pathlib import Path

import click

from modelmerger.cli import printed
from modelmerger.cli.given_config import read_changed
from modelmerger.cli.options import CONFIG, DEBUG, JSON, Changes, with_changes


@click.command()
@CONFIG
@with_changes
@JSON
@DEBUG
def plan(config: Path, changes: Changes, as_json: bool) -> None:
    """Print what merging CONFIG would read and write, the memory and disk that it needs, and how long it would take."""
    from modelmerger.engine.merged_checkpoint import MergedCheckpoint
    from modelmerger.planning.prepared import prepare
    from modelmerger.planning.rates import look_ahead

    with prepare(*read_changed(config, changes).resolve(), merged=MergedCheckpoint) as ready:
        output = ready.settings.output_path
        outlook = look_ahead(ready.plan, Path(output) if output else None)
    if as_json:
        notes = printed.notes_as_data(ready.notes)
        click.echo(printed.to_json(ready.plan.as_dict() | {"notes": notes, "outlook": outlook.as_dict()}))
    else:
        for note in ready.notes:
            if note.severity == "warning" and note not in ready.plan.notes:  # which the plan itself shows
                click.echo(f"{note.severity}: {note}", err=True)
        click.echo(f"{ready.plan}\n{outlook}".rstrip())
