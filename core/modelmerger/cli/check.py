"""`modelmerger check`."""

from pathlib import Path

import click

from modelmerger.cli import printed
from modelmerger.cli.given_config import read_changed
from modelmerger.cli.options import CONFIG, DEBUG, JSON, SET


@click.command()
@CONFIG
@SET
@JSON
@DEBUG
def check(config: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Say whether the models of CONFIG can be merged. Reads headers and JSON only."""
    from modelmerger.config.resolve import resolve
    from modelmerger.run import check as check_merge

    notes = check_merge(*resolve(read_changed(config, settings)))
    if as_json:
        click.echo(
            printed.to_json({"compatible": True, "notes": [{"severity": n.severity, "message": str(n)} for n in notes]})
        )
        return
    for note in notes:
        click.echo(f"{note.severity}: {note}", err=True)
    click.echo("the models can be merged")
