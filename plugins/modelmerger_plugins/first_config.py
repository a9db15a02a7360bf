"""Write a config to begin with, from three questions or from models on the command line."""

import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import click
from click.shell_completion import CompletionItem
from modelmerger import ConfigError, OutputError, Problem, dump_yaml, hookimpl, shown

WITH_BASE, WITHOUT_BASE = "task_arithmetic", "weighted"
SCALE = 0.35
"""Of the sum of task vectors: what kept most of each of four dialects in this project's own measurements."""


@hookimpl
def add_commands(cli: click.Group) -> None:
    """Adds `init`."""
    cli.add_command(init)


def _directories(_: click.Context, __: click.Parameter, ___: str) -> list[CompletionItem[str]]:
    return [CompletionItem("", type="dir")]


def _strategies(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    names = entry_points(group="modelmerger.strategies").names
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


@click.command()
@click.argument("models", nargs=-1, shell_complete=_directories)
@click.option("--base", shell_complete=_directories, help="The base model that the models were tuned from.")
@click.option(
    "--strategy", shell_complete=_strategies, help="How they are merged; 'modelmerger plugins' lists what is installed."
)
@click.option("--output", default="./merged", show_default=True, help="Directory of the merged model.")
@click.option(
    "--file", type=click.Path(path_type=Path), default="merge.yaml", show_default=True, help="The config to write."
)
def init(models: tuple[str, ...], base: str | None, strategy: str | None, output: str, file: Path) -> None:
    """Write a config that merges MODELS (directories or Hub ids); without any, three questions are asked."""
    if file.exists():
        raise OutputError(Problem("exists already. Give another name with --file, or remove it", str(file)))
    given: Sequence[str] = models
    if not given:
        if not sys.stdin.isatty():
            raise ConfigError("no model is given. Name the models: modelmerger init ./models/chat ./models/formal")
        given = _split(click.prompt("Which models? Directories or Hub ids, with spaces between them"))
        base = base or click.prompt("Which base model were they tuned from? Empty if there is none", default="") or None
        output = click.prompt("Where does the merged model go?", default=output)
    text = first_config(given, base, strategy, output, file.name)
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise OutputError(Problem(f"cannot be written ({error.strerror}). Give another one", str(file))) from error
    click.echo(f"wrote {shown(file)}; next: modelmerger check {shown(shlex.quote(str(file)))}")


def _split(answer: str) -> list[str]:
    try:
        return shlex.split(answer)
    except ValueError as error:
        raise ConfigError(f"'{answer}' cannot be split into models ({error}). Close the quotes") from error


def first_config(models: Sequence[str], base: str | None, strategy: str | None, output: str, name: str) -> str:
    """The config as YAML with comments. name: that of its file."""
    chosen = strategy or (WITH_BASE if base else WITHOUT_BASE)
    lines = [
        f"# Say whether it can be merged: modelmerger check {name}; merge it: modelmerger merge {name}.",
        f"strategy: {_value(chosen)}   # 'modelmerger plugins' lists the others",
    ]
    lines += [f"base_model: {_value(base)}"] if base else []
    lines += ["models:"]
    for model in models:
        lines += [f"  - path: {_value(model)}", "    weight: 1.0"]
    lines += [f"output_path: {_value(output)}"]
    if chosen == WITH_BASE:
        lines += ["options:", f"  scaling_factor: {SCALE}   # of the sum of what the models learned; try 0.2 to 1.0"]
    if chosen == WITHOUT_BASE:
        lines += ["options:", "  normalize_weights: true   # weights are divided by their sum"]
    lines += [
        "validation:",
        "  compare_with_sources: true   # the models side by side with the merged one",
        "  # dataset: ./texts           # your own texts: a file, or a folder with a file for each dialect",
    ]
    return "\n".join(lines) + "\n"


def _value(text: str) -> str:
    """A text as it stands in YAML."""
    return dump_yaml({"x": text}).removeprefix("x: ").rstrip("\n")
