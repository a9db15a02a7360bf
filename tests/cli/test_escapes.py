"""What commands print of names that others chose: nothing of it moves the cursor, colours or turns the text around."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import random_tensors, write_model

Command = Callable[..., SimpleNamespace]
Distribution = Callable[..., Path]

BIDI = "a\u202eb\u2066c\u200f"
ANSI = "a\x1b[31m\u202eb\x9bc"
ESCAPED = "a\\x1b[31m\\u202eb\\x9bc"

COUNTING = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None))

@hookimpl
def merge_tensor(tensors):
    return tensors[0].clone()

@hookimpl
def finish_tensor(merged):
    return {"odd\\x1b[2J\\u202e": 1}
"""


def visible(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.fixture
def named(tmp_path: Path) -> SimpleNamespace:
    """A config whose model and output have hostile names."""
    model = write_model(tmp_path / BIDI, random_tensors(0))
    output = tmp_path / f"{BIDI} out"
    path = tmp_path / "merge.json"
    path.write_text(json.dumps({"strategy": "weighted", "models": [{"path": str(model)}], "output_path": str(output)}))
    return SimpleNamespace(config=path, model=model, output=output)


def test_no_command_prints_a_name_as_it_is(named: SimpleNamespace, command: Command) -> None:
    for arguments in (
        ("check", named.config),
        ("plan", named.config),
        ("merge", named.config),
        ("verify", named.output),
        ("validate", named.output),
        ("merge", named.config),
        ("verify", f"{named.output} none"),
    ):
        result = command(*arguments)

        assert visible(result.out), (arguments, result.out)
        assert visible(result.err), (arguments, result.err)


def test_verify_prints_the_name_of_the_directory_escaped(named: SimpleNamespace, command: Command) -> None:
    assert command("merge", named.config).status == 0
    moved = named.output.rename(named.output.with_name(ANSI))

    result = command("verify", moved)

    assert result.status == 0
    assert f"{ESCAPED}: " in result.out
    assert visible(result.out)
    (moved / "model.safetensors").rename(moved / ANSI)
    damaged = command("verify", moved)
    assert damaged.status == 3
    assert visible(damaged.err)


def test_json_says_a_name_in_escapes_that_readers_undo(named: SimpleNamespace, command: Command) -> None:
    for arguments in (("plan", "--no-trial", named.config), ("merge", named.config), ("verify", named.output)):
        result = command(*arguments, "--json")

        assert result.status == 0
        assert visible(result.out), arguments
        assert {str(named.output), str(named.model)} & set(_texts(json.loads(result.out))), arguments


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


def test_what_a_plugin_counts_is_printed_escaped(
    named: SimpleNamespace, command: Command, distribution: Distribution
) -> None:
    distribution("counting", "1.0", "[modelmerger.strategies]\ncounting = counting_odd\n", counting_odd=COUNTING)
    config = json.loads(named.config.read_text())
    named.config.write_text(json.dumps({**config, "strategy": "counting"}))

    result = command("merge", named.config)

    assert result.status == 0
    assert "odd\\x1b[2J\\u202e" in result.out
    assert visible(result.out)
