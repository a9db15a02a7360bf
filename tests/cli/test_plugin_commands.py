"""Commands of installed distributions: listed without being imported, run, and to blame by name."""

import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.core.plugging import install
from tests.core.test_light_imports import HEAVY, run

Command = Callable[..., SimpleNamespace]
Distribution = Callable[..., Path]

COUNT = '''
"""Count the models of a config, and nothing else.

More about it.
"""

import click
from modelmerger import ConfigError, MergeConfig, hookimpl


@hookimpl
def add_commands(cli):
    @cli.command("count")
    @click.argument("config")
    @click.option("--twice", is_flag=True)
    def count(config, twice):
        """Count the models of CONFIG."""
        click.echo(len(MergeConfig.from_file(config).models) * (1 + twice))
'''
BODY = "import sys\nimport click\nfrom modelmerger import InputError, hookimpl\n\n@hookimpl\ndef add_commands(cli):\n    @cli.command('x')\n    def x():\n        {}\n"


def test_a_command_is_listed_and_run(command: Command, distribution: Distribution, path: Path) -> None:
    (module,) = install(distribution, [("command", "count", COUNT)])
    listed = command("--help")
    assert re.search(r"^  count +Count the models of a config, and nothing else\.$", listed.out, re.MULTILINE)
    assert module not in sys.modules
    assert (command("count", path).out, command("count", path, "--twice").out) == ("2\n", "4\n")
    help_of_it = command("count", "--help")
    assert (help_of_it.status, help_of_it.err) == (0, "")
    assert "Usage: modelmerger count [OPTIONS] CONFIG" in help_of_it.out
    assert "--debug" in help_of_it.out
    assert "\n  count " in command("plugins").out.partition("commands:")[2]


def test_neither_help_nor_another_command_imports_it_or_anything_heavy(distribution: Distribution) -> None:
    """Its package is not imported for the help line either."""
    site = distribution("acme-merge", "1.0", "[modelmerger.commands]\ncount = acme_package.count\n", acme_other="")
    (site / "acme_package").mkdir()
    (site / "acme_package/__init__.py").write_text("1 / 0")
    (site / "acme_package/count.py").write_text('"""Counts."""\n1 / 0\n')
    statuses, modules = run(["--help"], ["plugins"], ["merge", "--help"], ["cuont"], extra_path=[str(site)])
    assert statuses == [0, 0, 0, 2]
    assert not {name for name in modules if name.startswith("acme")}
    assert not modules & {*HEAVY, "rich"}


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import modelmerger_no_such", "From acme-merge 1.0."),
        ("def broken(:", "From acme-merge 1.0."),
        ('"""Breaks."""\n1 / 0', "Breaks."),
    ],
)
def test_one_that_cannot_be_imported_breaks_no_other(
    command: Command, distribution: Distribution, path: Path, source: str, line: str
) -> None:
    install(distribution, [("command", "broken", source), ("command", "count", COUNT)])
    assert re.search(rf"^  broken +{re.escape(line)}$", command("--help").out, re.MULTILINE)
    assert command("count", path).out == "2\n"
    assert command("check", path).status == 0
    result = command("broken")
    assert (result.status, result.out) == (7, "")
    assert result.err.startswith("error: command 'broken' from acme-merge 1.0 could not be imported: ")
    assert len(result.err.splitlines()) == 1


def test_a_mistyped_one_is_suggested(command: Command, distribution: Distribution) -> None:
    install(distribution, [("command", "count", COUNT)])
    assert command("cuont").err == "error: no command is named 'cuont', did you mean 'count'?\n"


def test_a_built_in_command_cannot_be_taken(
    command: Command, distribution: Distribution, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (module,) = install(distribution, [("command", "check", COUNT)])
    result = command("check", path)
    assert result.status == 2
    assert result.err == (
        "error: command 'check' is provided twice: by acme-merge 1.0 and by modelmerger "
        f"{version('modelmerger')}; uninstall one of them or set MODELMERGER_DISABLE_PLUGINS=acme-merge.\n"
    )
    assert "check              acme-merge 1.0  (clash)" in command("plugins").out
    assert command("--help").out.count("  check ") == 1
    monkeypatch.setenv("MODELMERGER_DISABLE_PLUGINS", "acme-merge")
    assert command("check", path).status == 0
    assert module not in sys.modules


def test_a_name_of_two_distributions_is_an_error_that_names_both(command: Command, distribution: Distribution) -> None:
    install(distribution, [("command", "count", COUNT)])
    install(distribution, [("command", "count", COUNT)], "other-merge", "2.0")
    result = command("count", "x")
    assert result.status == 2
    assert "command 'count' is provided twice: by acme-merge 1.0 and by other-merge 2.0; " in result.err


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("1 / 0", 7, "command 'x' from acme-merge 1.0 raised ZeroDivisionError: division by zero"),
        ("open('/nowhere/x')", 7, "command 'x' from acme-merge 1.0 raised FileNotFoundError: "),
        ("raise InputError('is no model')", 3, "is no model"),
        ("raise click.UsageError('give another')", 2, "give another. See modelmerger x --help"),
        ("raise click.Abort", 130, "interrupted. Nothing was written."),
        ("sys.exit('no')", 7, "command 'x' from acme-merge 1.0 raised SystemExit: no"),
    ],
)
def test_what_a_command_raises(command: Command, distribution: Distribution, body: str, status: int, said: str) -> None:
    install(distribution, [("command", "x", BODY.format(body))])
    result = command("x")
    assert (result.status, result.out) == (status, "")
    assert result.err.startswith(f"error: {said}")
    assert len(result.err.splitlines()) == 1
    assert "Traceback" in command("x", "--debug").err or status == 130


@pytest.mark.parametrize(
    ("body", "status"), [("sys.exit(5)", 5), ("sys.exit()", 0), ("raise click.exceptions.Exit(6)", 6)]
)
def test_a_command_may_end_with_a_status_of_its_own(
    command: Command, distribution: Distribution, body: str, status: int
) -> None:
    install(distribution, [("command", "x", BODY.format(body))])
    assert (command("x").status, command("x").err) == (status, "")


@pytest.mark.parametrize(
    ("kind", "source", "said"),
    [
        ("command", "x = 1", "command 'x' from acme-merge 1.0 does not have the hook add_commands."),
        ("command", COUNT, "command 'x' from acme-merge 1.0 adds 'count', which is no entry point of modelmerger.commands."),
        ("command", "from modelmerger import hookimpl\n@hookimpl\ndef add_commands(): pass", "command 'x' from acme-merge 1.0 does not add the command 'x'."),
        ("command", "from modelmerger import hookimpl\n@hookimpl\ndef add_commands(cli): 1 / 0", "command 'x' from acme-merge 1.0 raised ZeroDivisionError in add_commands: division by zero"),
    ],
)  # fmt: skip
def test_a_plugin_adds_what_it_declares(
    command: Command, distribution: Distribution, kind: str, source: str, said: str
) -> None:
    install(distribution, [(kind, "x", source)])
    result = command("x")
    place = r" \(.*acme_x.*\.py, line 3\)" if "raised" in said else ""
    assert result.status == 7
    assert re.fullmatch(f"error: {re.escape(said)}{place}\n", result.err)


def test_a_plugin_that_is_always_on_cannot_add_commands_unasked(
    command: Command, distribution: Distribution, path: Path
) -> None:
    install(distribution, [("plugin", "x", COUNT)])
    assert command("check", path).err == (
        "error: plugin 'x' from acme-merge 1.0 has the hook add_commands, which is called only of entry points of "
        "modelmerger.commands. MODELMERGER_DISABLE_PLUGINS=x switches it off.\n"
    )


def test_one_module_may_add_several(command: Command, distribution: Distribution) -> None:
    both = BODY.format("click.echo('x')") + "    @cli.command('y')\n    def y():\n        click.echo('y')\n"
    distribution("acme-merge", "1.0", "[modelmerger.commands]\nx = acme_both\ny = acme_both\n", acme_both=both)
    assert (command("x").out, command("y").out) == ("x\n", "y\n")
    del sys.modules["acme_both"]


def test_a_command_prints_one_document_with_escapes_also_if_it_fails_after_it(
    command: Command, distribution: Distribution
) -> None:
    source = """
import click
from modelmerger import ThresholdError, hookimpl, print_json

@hookimpl
def add_commands(cli):
    @cli.command("find")
    @click.option("--json", "as_json", is_flag=True)
    def find(as_json):
        print_json({"name": "\\u202e", "large": 2**60})
        raise ThresholdError("too little was found")
"""
    install(distribution, [("command", "find", source)])
    result = command("find", "--json")
    assert (result.status, result.err) == (8, "error: too little was found\n")
    assert json.loads(result.out) == {"name": "\u202e", "large": str(2**60)}
    assert "\u202e" not in result.out
