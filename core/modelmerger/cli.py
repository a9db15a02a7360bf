"""The command line: a thin shim over the Python API. Every failure is a line on stderr and an exit status."""

import atexit
import contextlib
import gc
import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from importlib_metadata import version

from modelmerger.values.errors import ConfigError, MergeError, OutputError, Problem, ThresholdError
from modelmerger.values.text import LINE_LIMIT, shown, suggestion

if TYPE_CHECKING:
    from modelmerger.values.findings import ValidationReport

CONFIG = click.argument("config", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the config: options.scaling_factor=0.3",
)
DEBUG = click.option(
    "--debug", is_flag=True, help="Show tracebacks.", expose_value=False, callback=lambda c, _, v: _debug(c, v)
)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception in the main thread."""


class Suggesting(click.Group):
    """A group whose 'no such command' says what is near."""

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        if args and self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            known = self.list_commands(context)
            raise click.UsageError(
                f"no command is named '{args[0]}'{suggestion(args[0], known) or ' (' + ', '.join(known) + ')'}"
            )
        return super().resolve_command(context, args)


def _debug(context: click.Context, value: bool) -> bool:
    if value:
        context.find_root().obj["debug"] = True
    return value


@click.group(
    cls=Suggesting,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(version("modelmerger"), prog_name="modelmerger", message="%(prog)s %(version)s")
def cli() -> None:
    """Merge language models and adapters, safely and in constant memory."""


@cli.command()
@CONFIG
@click.option("--output", type=click.Path(path_type=Path), help="Directory of the merged model; wins over output_path.")
@click.option("--overwrite", is_flag=True, help="Replace an output directory that an earlier merge wrote.")
@SET
@JSON
@DEBUG
def merge(config: Path, output: Path | None, overwrite: bool, settings: tuple[str, ...], as_json: bool) -> None:
    """Merge the models of CONFIG (YAML or JSON) into a new directory."""
    from modelmerger.progress import shown_progress, shown_steps
    from modelmerger.run import Watch, run_merge
    from modelmerger.validation.running import validate_published

    data = _config(config, settings)
    if overwrite:
        data["options"] = {**(data.get("options") or {}), "overwrite": True}
    target = output or (Path(data["output_path"]) if isinstance(data.get("output_path"), str) else None)
    click.get_current_context().find_root().obj["target"] = target
    with shown_progress("merging") as progress:
        report = run_merge(data, output, Watch(progress=progress))
    if not as_json:
        click.echo(str(report))
    with shown_steps("validating") as step:
        report = validate_published(report, data, step)
    if as_json:
        click.echo(_json(report.as_dict()))
    if report.validation is not None:
        _show(report.validation, as_json, f"the merged model is at {shown(report.output)}; its validation", saved=True)


@cli.command()
@CONFIG
@SET
@JSON
@DEBUG
def check(config: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Say whether the models of CONFIG can be merged. Reads headers and JSON only."""
    from modelmerger.run import check as checked

    notes = checked(_config(config, settings))
    if as_json:
        click.echo(_json({"compatible": True, "notes": [{"severity": n.severity, "message": str(n)} for n in notes]}))
        return
    for note in notes:
        click.echo(f"{note.severity}: {note}", err=True)
    click.echo("the models can be merged")


@cli.command()
@CONFIG
@SET
@JSON
@DEBUG
def plan(config: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Print what merging CONFIG would read and write, the memory and disk it needs, and about how long it would take."""
    from modelmerger.planning.rates import look_ahead
    from modelmerger.run import prepared

    with prepared(_config(config, settings)) as ready:
        output = ready.settings.output_path
        outlook = look_ahead(ready.plan, Path(output) if output else None)
    if as_json:
        click.echo(_json(ready.plan.as_dict() | {"outlook": outlook.as_dict()}))
    else:
        click.echo(f"{ready.plan}\n{outlook}".rstrip())


@cli.command()
@click.argument("model")
@click.option("--against", multiple=True, metavar="SOURCE", help="A model to compare with; may be given several times.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="The config of the merge, or one of a validation alone."
)
@SET
@JSON
@DEBUG
def validate(
    model: str, against: tuple[str, ...], config: Path | None, settings: tuple[str, ...], as_json: bool
) -> None:
    """Measure MODEL, a directory or a Hub id, as the 'validation' of the config says."""
    from modelmerger.output.manifest import is_ours
    from modelmerger.progress import shown_steps
    from modelmerger.validation.candidate import named_candidate
    from modelmerger.validation.running import save_report
    from modelmerger.validation.running import validate as validated

    data = _config(config, settings)
    candidate, wanted = named_candidate(model, against, data)
    with shown_steps("validating") as step:
        report = validated(candidate, wanted, step)
    saved = candidate.directory == Path(os.path.expanduser(model)) and is_ours(candidate.directory)
    if saved:
        save_report(candidate.directory, report)
    if as_json:
        click.echo(_json(report.as_dict()))
    _show(report, as_json, report.directory, saved)


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@JSON
@DEBUG
def verify(model: Path, as_json: bool) -> None:
    """Say whether the merged MODEL is still what was published."""
    from modelmerger.output.verification import verify as verified

    found = verified(model)
    click.echo(
        _json({"directory": found.directory, "files": found.files, "bytes": found.bytes}) if as_json else str(found)
    )


@cli.command()
@JSON
@DEBUG
def plugins(as_json: bool) -> None:
    """List the installed strategies, validators and plugins. Imports none of them."""
    from modelmerger.hooks.registry import PLURALS, Registry

    registry = Registry.installed()
    off = dict(registry.switched_off)
    providers = [*registry.providers, *off]
    clashing = {p for kind in PLURALS for clash in registry.clashes(kind).values() for p in clash}
    if as_json:
        rows = [
            {"kind": p.kind, "name": p.name, "distribution": p.distribution, "version": p.version, "on": p not in off}
            for p in providers
        ]
        click.echo(_json(rows))
        return
    for kind, plural in PLURALS.items():
        click.echo(f"{plural}:")
        listed = [provider for provider in providers if provider.kind == kind]
        for provider in listed:
            state = f"  (off: {off[provider]})" if provider in off else "  (clash)" if provider in clashing else ""
            click.echo(f"  {shown(provider.name):<18} {shown(provider.source)}{state}")
        if not listed:
            click.echo("  none")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    state: dict[str, Any] = {"debug": False, "target": None}
    with _terminable(), _logging():
        try:
            # click's own main would turn a signal and a broken pipe into something else
            given = sys.argv[1:] if arguments is None else list(arguments)
            with cli.make_context("modelmerger", given, obj=state) as context:
                cli.invoke(context)
            if sys.stdout is not None:
                sys.stdout.flush()
            return 0
        except click.exceptions.Exit as exit_:
            return exit_.exit_code
        except (click.ClickException, MergeError) as error:
            _say(error)
            status = error.exit_status if isinstance(error, MergeError) else 2
            _trace(state)
        except KeyboardInterrupt as error:
            click.echo(f"error: {str(error) or 'interrupted.' + _resumable(state['target'])}", err=True)
            status = 143 if isinstance(error, Terminated) else 130
        except BrokenPipeError:
            status = _without_output()
        except OSError as error:
            _say(OutputError(Problem(f"{error.strerror or error}.", str(error.filename or "standard output"))))
            status = _without_output()
            _trace(state)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            click.echo(
                f"error: a bug in modelmerger: {shown(text, LINE_LIMIT - 80)}. Run it with --debug and report it.",
                err=True,
            )
            status = 1
            _trace(state)
        return status


def run() -> None:
    """The console script.

    torch's import makes half a million objects that live to the end. To look through them for garbage takes a fifth of a
    second while they are made, as much again when the interpreter ends, and to take them apart then a tenth. numpy's BLAS,
    which no merge uses, would start a thread a core, and they wait by spinning.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()
    status = 1

    def leave() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # closed by whoever reads or writes it
                stream.flush()
        os._exit(status)

    atexit.register(leave)  # registered first, so called last: when threads have ended and others have cleared up
    sys.exit(status := main())


def _without_output() -> int:
    """What is still to be printed goes nowhere, so that the interpreter does not fail at it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 4


def _trace(state: Mapping[str, Any]) -> None:
    if state["debug"]:
        traceback.print_exc()


def _say(error: click.ClickException | MergeError) -> None:
    lines = error.lines() if isinstance(error, MergeError) else [str(Problem(_usage(error)))]
    for line in lines:
        click.echo(line if line.startswith("… and") else f"error: {line}", err=True)


def _usage(error: click.ClickException) -> str:
    """Click's message as a sentence that says where help is."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    sentence = error.format_message().rstrip(".")
    stop = "" if sentence.endswith("?") else "."
    return f"{sentence}{stop} See {context.command_path} --help" if context else sentence


def _show(report: "ValidationReport", printed: bool, what: str, saved: bool) -> None:
    """Prints the report, and where it is saved, unless it is printed already. Raises `ThresholdError` if it is not passed."""
    from modelmerger.output.manifest import read_manifest
    from modelmerger.validation.table import print_report
    from modelmerger.values.findings import crossing

    if not printed:
        print_report(report)
        if saved:
            directory = Path(report.directory)
            names = [name for name in read_manifest(directory)["companions"] if (directory / name).exists()]
            click.echo(f"saved in {shown(report.directory)}: {', '.join(names)}")
    if not report.passed:
        raise ThresholdError(*(Problem(f"{what}: {crossing(finding)}.") for finding in report.crossings))


def _config(path: Path | None, changes: tuple[str, ...]) -> dict[str, Any]:
    from modelmerger.config.merge_config import read_config

    data = read_config(path) if path is not None else {}
    for change in changes:
        _set(data, change)
    return data


def _set(data: dict[str, Any], change: str) -> None:
    """`models[0].weight=0.5`: walks to the place, which must exist up to its last key, and puts the value, read as YAML."""
    from modelmerger.config.documents.document import DocumentError, parse_document

    key, equals, text = change.partition("=")
    steps = re.findall(r"[^.\[\]]+", key)
    if not equals or not steps:
        raise ConfigError(f"--set wants KEY=VALUE, got '{change}'. For example --set options.scaling_factor=0.3")
    try:
        value = parse_document(f"value: {text}", source="--set", format="yaml")["value"]
    except DocumentError as error:
        reason = re.sub(r"^line \d+, column \d+: ", "", error.problems[0])
        raise ConfigError(Problem(f"the value cannot be read: {reason}", f"--set {change}")) from error
    place: Any = data
    for step in steps[:-1]:
        if isinstance(place, list):
            place = place[_number(step, place, change)]
        else:
            place = place.setdefault(step, {}) if isinstance(place, dict) else place
        if not isinstance(place, dict | list):
            raise ConfigError(f"--set {change}: '{step}' is no mapping or list in the config")
    if isinstance(place, list):
        place[_number(steps[-1], place, change)] = value
    else:
        place[steps[-1]] = value


def _number(step: str, place: list[Any], change: str) -> int:
    if not place:
        raise ConfigError(f"--set {change}: the list is empty, so there is no '{step}' in it")
    if not step.isdecimal() or int(step) >= len(place):
        raise ConfigError(f"--set {change}: the list has entries 0 to {len(place) - 1}, and not '{step}'")
    return int(step)


def _resumable(target: Path | None) -> str:
    from modelmerger.output.staging import is_published, staging_path

    place = Path(os.path.abspath(os.path.expanduser(target))) if target is not None else None
    if place is None or not staging_path(place).exists():
        return " Nothing was written."
    if is_published(place):
        return f" The merged model is at {shown(place)}; run the same command again to clear up."
    return " The output is as it was; run the same command again to go on where this one stopped."


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends like Ctrl-C, with its own exit status."""

    def terminate(_: int, __: Any) -> None:
        raise Terminated

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Lowercase(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {record.getMessage()}"


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """What the `modelmerger` logger says goes to stderr while a command runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lowercase())
    logger = logging.getLogger("modelmerger")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
