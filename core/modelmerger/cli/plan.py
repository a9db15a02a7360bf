"""`modelmerger plan`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import evolve

from modelmerger.cli import printed
from modelmerger.cli.given_config import read_changed
from modelmerger.cli.options import CONFIG, DEBUG, JSON, KEEP_EXTRA, OUTPUT, OVERWRITE, Changes, with_changes
from modelmerger.cli.streams import say
from modelmerger.values.errors import MergeError, Problem

if TYPE_CHECKING:
    from modelmerger.planning.outlook.nodes import OnNodes
    from modelmerger.planning.outlook.rates import Outlook
    from modelmerger.planning.prepared import Prepared
    from modelmerger.values.plan import MergePlan
    from modelmerger.values.settings import Settings


@click.command()
@CONFIG
@OUTPUT
@OVERWRITE
@KEEP_EXTRA
@click.option("--no-trial", is_flag=True, help="Do not try the strategy out on a few slices.")
@click.option(
    "--nodes", type=click.IntRange(1, 10_000), help="Say too what it would take on up to so many machines like this."
)
@with_changes
@JSON
@DEBUG
def plan(
    config: Path,
    output: Path | None,
    overwrite: bool,
    keep_extra: bool,
    no_trial: bool,
    nodes: int | None,
    changes: Changes,
    as_json: bool,
) -> None:
    """Print what merging CONFIG would read and write, the memory and disk that it needs, and how long it would take."""
    from modelmerger.before_publishing import asking
    from modelmerger.engine.merged_checkpoint import MergedCheckpoint
    from modelmerger.planning.outlook.nodes import on_nodes
    from modelmerger.planning.outlook.rates import look_ahead
    from modelmerger.planning.outlook.trial import Trial, with_trial
    from modelmerger.planning.prepared import prepare
    from modelmerger.refusals import output_of
    from modelmerger.trial import try_out

    settings, hooks = read_changed(config, changes).asking_for(overwrite=overwrite, keep_extra=keep_extra).resolve()
    with (
        prepare(settings, hooks, merged=MergedCheckpoint, thorough=_as_a_merge(settings)) as ready,
        asking(ready.settings, ready.inquiries) as asked,
    ):
        refused = _refusal(ready, output)
        trial = None if no_trial or refused else try_out(ready)
        tried = trial if isinstance(trial, Trial) else None
        shown = _with_note(ready, trial) if isinstance(trial, Problem) else ready
        shown = evolve(ready, plan=with_trial(ready.plan, tried)) if tried is not None else shown
        try:
            shown = evolve(shown, notes=[*shown.notes, *asked.answers()])
        except MergeError as error:
            refused = refused or error
        outlook = look_ahead(ready.plan, output_of(ready.settings, output), tried)
        _show(shown, outlook, on_nodes(shown.plan, outlook, nodes) if nodes else [], as_json)
        if refused:
            raise refused


def _as_a_merge(settings: "Settings") -> "Callable[[MergePlan], bool]":
    from modelmerger.before_publishing import is_thorough

    return lambda plan: is_thorough(settings, plan, loads=False)


def _refusal(ready: "Prepared", output: Path | None) -> MergeError | None:
    from modelmerger.refusals import refuse

    try:
        refuse(ready.settings, ready.hooks, output, ready.inputs, ready.plan)
    except MergeError as error:
        return error
    return None


def _with_note(ready: "Prepared", note: Problem) -> "Prepared":
    plan = evolve(ready.plan, notes=[*ready.plan.notes, note])
    return evolve(ready, notes=[*ready.notes, note], plan=plan)


def _show(ready: "Prepared", outlook: "Outlook", nodes: "Sequence[OnNodes]", as_json: bool) -> None:
    if as_json:
        notes = printed.notes_as_data(ready.notes)
        as_data = _with_digest(ready).plan.as_dict()
        told = {"notes": notes, "outlook": outlook.as_dict()}
        printed.print_json(as_data | told | ({"nodes": [row.as_dict() for row in nodes]} if nodes else {}))
        return
    for note in ready.notes:
        if note.severity == "warning" and note not in ready.plan.notes:  # which the plan itself shows
            say(f"{note.severity}: {note}")
    click.echo(f"{ready.plan}\n{outlook}".rstrip())
    if nodes:
        from modelmerger.planning.outlook.nodes import shown_nodes

        click.echo(shown_nodes(nodes))


def _with_digest(ready: "Prepared") -> "Prepared":
    """Imports torch, as the text of a plan, which shows no digest, does not."""
    from modelmerger.engine.arithmetic_digest import with_digest

    return with_digest(ready)
