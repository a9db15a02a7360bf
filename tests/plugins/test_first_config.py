"""`modelmerger init`: what it writes is a config that merges, and it writes over nothing."""

import os
import pty
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from modelmerger import MergeConfig, parse_document
from modelmerger_plugins.first_config import first_config

Command = Callable[..., SimpleNamespace]


def test_models_on_the_command_line_become_a_config_that_merges(
    command: Command, models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models.folder)
    result = command("init", "./a", "./b", "--base", "./base")
    assert (result.status, result.out) == (0, "wrote merge.yaml; next: modelmerger check merge.yaml\n")
    config = MergeConfig.from_file("merge.yaml")
    assert (config.strategy, config.base_model, config.output_path) == ("task_arithmetic", "./base", "./merged")
    assert [model["path"] for model in config.models] == ["./a", "./b"]
    assert command("check", "merge.yaml").status == 0
    assert command("merge", "merge.yaml", "--set", "validation.run_tests=false").status == 0
    again = command("init", "./a")
    assert (again.status, again.err) == (
        4,
        "error: merge.yaml: exists already. Give another name with --file, or remove it\n",
    )
    assert MergeConfig.from_file("merge.yaml") == config


def test_without_a_base_it_is_an_average(command: Command, models: SimpleNamespace, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    assert command("init", models.a, models.b, "--file", file, "--output", tmp_path / "out").status == 0
    config = MergeConfig.from_file(file)
    assert (config.strategy, config.output_path) == ("weighted", str(tmp_path / "out"))
    assert config.options == {"normalize_weights": True}


@pytest.mark.parametrize("path", ["a: b", "- x", "#x", "نموذج", "it's", '"', " x ", "null", "1e3", "yes", "a\\b"])
def test_any_name_is_written_so_that_it_is_read_back(path: str) -> None:
    text = first_config([path], path, "ties", path, "merge.yaml")
    found = parse_document(text, source="", format="yaml")
    assert (found["models"][0]["path"], found["base_model"], found["output_path"]) == (path, path, path)
    assert found["strategy"] == "ties"
    assert "options" not in found


def test_without_models_and_without_anybody_to_ask_it_says_what_to_do(command: Command) -> None:
    result = command("init")
    assert result.status == 2
    assert "no model is given. Name the models: modelmerger init ./models/chat" in result.err


def test_three_questions_are_asked(command: Command, models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models.folder)
    ours, theirs = pty.openpty()
    os.write(ours, b"./a './b'\n./base\n./out\n")
    with os.fdopen(theirs, "r") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        result = command("init")
    os.close(ours)
    assert result.status == 0
    config = MergeConfig.from_file("merge.yaml")
    assert [model["path"] for model in config.models] == ["./a", "./b"]
    assert (config.base_model, config.output_path) == ("./base", "./out")
