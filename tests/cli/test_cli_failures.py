"""Failures of the command line: a status by kind, one line a problem on stderr, no traceback unless it is asked for."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state, write_model
from modelmerger.cli.printed import to_json

from tests.core.plugging import install

Command = Callable[..., SimpleNamespace]
OWN = {"check", "completion", "merge", "plan", "plugins", "validate", "verify"}
COMMANDS = sorted(OWN | {point.name for point in entry_points(group="modelmerger.commands")})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mrege"], "no command is named 'mrege', did you mean 'merge'?"),
        (["zzz"], f"no command is named 'zzz' ({', '.join(COMMANDS)})"),
        (["merge"], "Missing argument 'CONFIG'. See modelmerger merge --help"),
        (["verify"], "Missing argument 'MODEL'. See modelmerger verify --help"),
        (["completion"], "Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish. See modelmerger completion --help"),
        (["merge", "c.yaml", "--output", ""], "Invalid value for '--output': it is empty, and a directory is wanted. See modelmerger merge --help"),
        (["plugins", "x", "y"], "Got unexpected extra argument (y). See modelmerger plugins --help"),
        (["merge", "c.yaml", "--overwrit"], "No such option '--overwrit'. Did you mean '--overwrite'? See modelmerger merge --help"),
        (["--debgu"], "No such option '--debgu'. See modelmerger --help"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_sentence_and_status_2(command: Command, arguments: list[str], sentence: str) -> None:
    result = command(*arguments)
    assert (result.status, result.out, result.err) == (2, "", f"error: {sentence}\n")


def test_a_config_that_cannot_be_read_is_named(command: Command, models: SimpleNamespace, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.yaml"
    assert command("merge", nowhere).err == f"error: {nowhere}: the file does not exist. Check the path.\n"
    directory = command("merge", models.a)
    assert (directory.status, len(directory.err.splitlines())) == (2, 1)
    assert f"{models.a}: is a directory, and a config is a file in YAML or JSON" in directory.err
    weights = command("check", models.a / "model.safetensors")
    assert (weights.status, len(weights.err.splitlines())) == (2, 1)
    assert str(models.a / "model.safetensors") in weights.err


def test_merge_without_an_output_path_is_a_usage_error(command: Command, path: Path, models: SimpleNamespace) -> None:
    result = command("merge", path, "--set", "output_path=")
    assert (result.status, result.out) == (2, "")
    assert (
        result.err
        == "error: no output path. Give the config an output_path; on the command line, --output does as well.\n"
    )


def test_every_problem_of_a_config_has_a_line(command: Command, path: Path) -> None:
    path.write_text(
        "strategy: slrp\nmodels:\n  - pth: ./a\n  - path: ./b\n    weight: '1'\noptions: {verbose: 1}\noutput: ./x\n"
    )
    result = command("merge", path)
    assert result.status == 2
    assert sorted(result.err.splitlines()) == [
        f"error: config: unknown key 'output', did you mean 'output_path'? ({path}:7)",
        f"error: models[0]: the key 'path' is missing ({path}:3)",
        f"error: models[0]: unknown key 'pth', did you mean 'path'? ({path}:3)",
        f"error: models[1].weight: must be a number or a list or a mapping, got '1'. Write it without quotes ({path}:5)",
        f"error: no strategy is named 'slrp'; did you mean 'slerp'? ({path}:1)",
        f"error: options.verbose: must be true or false, got 1 ({path}:6)",
    ]


def test_at_most_twenty_lines_of_at_most_300_characters(command: Command, path: Path, models: SimpleNamespace) -> None:
    names = [f"model.{'very_' * 60}long.{n}\u202e" for n in range(33)]
    write_model(models.a, {name: torch.zeros(100 + n) for n, name in enumerate(names)})
    write_model(models.b, {name: torch.zeros(200 + n) for n, name in enumerate(names)})
    result = command("merge", path)
    lines = result.err.splitlines()
    assert result.status == 3
    assert len(lines) == 21
    assert lines[20] == "… and 13 more"
    assert all(line.startswith("error: ") for line in lines[:20])
    assert max(map(len, lines)) <= 300
    assert "\u202e" not in result.err
    assert not models.output.exists()


def test_models_that_are_missing_are_all_named(command: Command, path: Path) -> None:
    result = command("check", path, "--set", "models[0].path=./nowhere", "--set", "models[1].path=org/name")
    assert result.status == 3
    assert result.err == (
        "error: ./nowhere: does not exist. Check the path.\n"
        "error: org/name: is not on this disk, nor whole in the Hub's cache, and the Hub cannot be reached "
        "(HF_HUB_OFFLINE is set). Run it once with a connection, or give a directory.\n"
    )


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("nowhere/there/merged", "the folder {folder}/nowhere does not exist. Make it first."),
        ("a", "is, contains or lies in the input 'a'"),
        ("merge.yaml", "exists and is a file"),
        ("base", "exists already"),
    ],
)
def test_an_output_that_may_not_be_written_is_status_4(
    command: Command, path: Path, models: SimpleNamespace, output: str, reason: str
) -> None:
    before = {str(p): directory_state(p) for p in models.folder.iterdir()}
    result = command("merge", path, "--output", models.folder / output)
    assert result.status == 4
    (line,) = result.err.splitlines()
    assert line.startswith(f"error: {models.folder / output}: ")
    assert reason.format(folder=models.folder) in line
    assert {str(p): directory_state(p) for p in models.folder.iterdir()} == before


def test_nan_in_an_input_is_status_5(command: Command, path: Path, models: SimpleNamespace) -> None:
    models.tensors["b"]["model.temperature"].fill_(float("nan"))
    write_model(models.b, models.tensors["b"])
    result = command("merge", path)
    assert result.status == 5
    assert result.err.startswith(f"error: {models.b}: model.temperature: 'b' holds 1 NaN.")
    assert not models.output.exists()


def test_a_bug_of_ours_is_status_1_and_says_so(command: Command, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(os, "statvfs", broken)  # called by none but the core
    result = command("merge", path)
    assert (result.status, result.out) == (1, "")
    assert result.err == "error: a bug in modelmerger: RuntimeError: two\\nlines. Run it with --debug and report it.\n"
    debugged = command("merge", path, "--debug")
    assert debugged.err.startswith(result.err)
    assert "Traceback (most recent call last):" in debugged.err
    assert "RuntimeError: two" in debugged.err


def test_debug_shows_where_an_error_was_raised(command: Command, path: Path) -> None:
    arguments = ("check", path, "--set", "options.verbose=1")
    plain, debugged = command(*arguments), command(*arguments, "--debug")
    assert "Traceback" not in plain.err
    assert debugged.status == plain.status == 2
    assert debugged.err.startswith(plain.err + "Traceback (most recent call last):")
    assert "in resolve" in debugged.err
    assert "NoneType" not in debugged.err


def test_debug_of_a_success_shows_nothing(command: Command, path: Path) -> None:
    assert command("plan", path, "--no-trial", "--debug").err == ""


def test_ctrl_c_before_anything_was_written(command: Command, path: Path, distribution: Callable[..., Path]) -> None:
    source = (
        "import os, signal\nfrom modelmerger import hookimpl\n\n"
        "@hookimpl\ndef check_compatibility():\n    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    install(distribution, [("plugin", "interrupted", source)])
    result = command("merge", path)
    assert (result.status, result.err) == (130, "error: interrupted. Nothing was written.\n")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "modelmerger", "plugins", "--json"], stdout=closed, stderr=subprocess.PIPE, timeout=60, check=False
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (4, b"")


def test_machines_get_one_object_of_a_command_that_fails(command: Command, path: Path, models: SimpleNamespace) -> None:
    for arguments, kind in (
        (("merge", path, "--set", "strategy=x"), "ConfigError"),
        (("plan", path, "--set", "models=3"), "ConfigError"),
        (("verify", models.a), "InputError"),
        (("merge", path, "--ouput", "x"), "ConfigError"),
        (("mrege", path), "ConfigError"),
    ):
        alone, result = command(*arguments), command(*arguments, "--json")
        assert (result.status, result.err) == (alone.status, alone.err)
        assert alone.out == ""
        error = json.loads(result.out)["error"]
        assert (error["kind"], error["exit_status"]) == (kind, result.status)
        assert [f"error: {problem['message']}" for problem in error["problems"]] == result.err.splitlines()
    assert json.loads(command("plan", path, "--no-trial", "--json").out)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError, OSError(28, "No space left"), ZeroDivisionError])
def test_machines_get_one_object_however_a_command_fails(
    command: Command, path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("modelmerger.run.check", fail)
    result = command("check", path, "--json")
    error = json.loads(result.out)["error"]
    assert error["exit_status"] == result.status
    assert [f"error: {problem['message']}" for problem in error["problems"]] == result.err.splitlines()


def test_the_list_of_commands_is_what_a_bare_command_shows(command: Command) -> None:
    result = command()
    assert (result.status, result.out) == (2, "")
    assert all(name in result.err for name in ("check", "merge", "plan", "plugins", "validate", "verify"))


def test_whole_numbers_that_not_every_reader_holds_are_texts() -> None:
    shown = json.loads(to_json({"a": [2**53, 2**53 + 1, -(2**63)], "b": True, "c": 0.5}))
    assert shown == {"a": [2**53, str(2**53 + 1), str(-(2**63))], "b": True, "c": 0.5}


def test_the_end_of_the_process_flushes_and_clears_up() -> None:
    """`run` skips taking the interpreter apart, and nothing that anyone asked for: the pipe, exit handlers, the status."""
    code = (
        "import atexit, sys\n"
        "from modelmerger.cli import process\n"
        "with_handler = process.cli.make_context\n"
        "def make_context(*arguments, **keywords):\n"
        "    atexit.register(lambda: print('cleared up', end=''))\n"
        "    return with_handler(*arguments, **keywords)\n"
        "process.cli.make_context = make_context\n"
        "sys.argv[1:] = ['merge', 'missing.yaml']\n"
        "process.run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (2, "cleared up")
    assert "missing.yaml" in done.stderr


@pytest.mark.parametrize("options", [5, "fast", [1], True])
def test_options_that_are_no_mapping_are_refused_with_overwrite_too(
    command: Callable[..., SimpleNamespace], models: SimpleNamespace, config: dict[str, Any], options: object
) -> None:
    path = models.folder / "merge.json"
    path.write_text(json.dumps({**config, "options": options}))

    result = command("merge", path, "--overwrite")

    assert (result.status, result.out) == (2, "")
    assert result.err == f"error: options: must be a mapping, got {options!r} ({path}:1)\n"
