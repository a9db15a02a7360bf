"""`modelmerger validate`."""

from pathlib import Path

import click

from modelmerger.cli import printed
from modelmerger.cli.completing.words import ConfigFile, directories
from modelmerger.cli.given_config import read_changed
from modelmerger.cli.options import DEBUG, JSON, Changes, with_changes
from modelmerger.cli.streams import say


@click.command()
@click.argument("model", shell_complete=directories)
@click.option(
    "--against",
    multiple=True,
    metavar="SOURCE",
    help="A model to compare with; may be given several times.",
    shell_complete=directories,
)
@click.option(
    "--config", type=ConfigFile(path_type=Path), help="The config of the merge, or one of a validation alone."
)
@with_changes
@JSON
@DEBUG
def validate(model: str, against: tuple[str, ...], config: Path | None, changes: Changes, as_json: bool) -> None:
    """Measure MODEL, a directory or a Hub id, as the 'validation' of the config says."""
    from modelmerger.output.manifest import is_ours
    from modelmerger.progress import show_tasks
    from modelmerger.validation.candidate import named_candidate
    from modelmerger.validation.companions import check_companions
    from modelmerger.validation.running import save_report
    from modelmerger.validation.running import validate as run_validation
    from modelmerger.values.model_reference import user_path

    of_merge, asked, hooks, notes = read_changed(config, changes).resolve_validation()
    for note in notes:
        say(f"{note.severity}: {note}")
    candidate, wanted = named_candidate(model, against, of_merge, asked, hooks)
    saved = candidate.directory == user_path(model) and is_ours(candidate.directory)
    if saved:
        check_companions(candidate.directory, hooks.validation)
    with show_tasks("validating", first=True) as watch:
        report = run_validation(candidate, wanted, hooks, watch)
    if saved:
        save_report(candidate.directory, report, hooks)
    if as_json:
        printed.print_json(report.as_dict())
    printed.show_validation(report, as_json, report.directory, saved)
