"""`modelmerger verify`."""

from pathlib import Path

import click

from modelmerger.cli import printed
from modelmerger.cli.completing.words import directories
from modelmerger.cli.options import DEBUG, JSON


@click.command()
@click.argument("model", type=click.Path(path_type=Path), shell_complete=directories)
@JSON
@DEBUG
def verify(model: Path, as_json: bool) -> None:
    """Say whether the merged MODEL is still what was published."""
    from modelmerger.output.verification import verify as verify_files

    found = verify_files(model)
    if as_json:
        printed.print_json({"directory": found.directory, "files": found.files, "bytes": found.bytes})
        return
    click.echo(str(found))
