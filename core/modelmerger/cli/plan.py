"""`modelmerger plan`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelmerger.cli import printed
from modelmerger.cli.given_config import read_changed
from modelmerger.cli.options import CONFIG, DEBUG, JSON, Changes, with_changes
from modelmerger.cli.streams import say

if TYPE_CHECKING:
    from modelmerger.planning.prepared import Prepared


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
        as_data = _with_digest(ready).plan.as_dict() if as_json else {}
    if as_json:
        notes = printed.notes_as_data(ready.notes)
        click.echo(printed.to_json(as_data | {"notes": notes, "outlook": outlook.as_dict()}))
    else:
        for note in ready.notes:
            if note.severity == "warning" and note not in ready.plan.notes:  # which the plan itself shows
                say(f"{note.severity}: {note}")
        click.echo(f"{ready.plan}\n{outlook}".rstrip())


def _with_digest(ready: "Prepared") -> "Prepared":
    """Imports torch, as the text of a plan, which shows no digest, does not."""
    from modelmerger.engine.arithmetic_digest import with_digest

    return with_digest(ready)
