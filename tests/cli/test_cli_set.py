"""`--set KEY=VALUE`: every place of a config can be changed, every mistake is one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Command = Callable[..., SimpleNamespace]


@pytest.fixture
def path(models: SimpleNamespace, config: dict[str, Any]) -> Path:
    file: Path = models.folder / "merge.json"
    file.write_text(json.dumps(config))
    return file


@pytest.fixture
def planned(command: Command, path: Path) -> Callable[..., dict[str, Any]]:
    """The plan, as data, of the config with these changes."""

    def plan(*changes: str) -> dict[str, Any]:
        result = command(
            "plan", path, "--no-trial", "--json", *(part for change in changes for part in ("--set", change))
        )
        assert result.status == 0, result.err
        found: dict[str, Any] = json.loads(result.out)
        return found

    return plan


def weights(plan: dict[str, Any]) -> list[Any]:
    return [model["weight"] for model in plan["models"]]


@pytest.mark.parametrize("key", ["models[1].weight", "models.1.weight", "models[1][weight]"])
def test_a_place_in_a_list(planned: Callable[..., dict[str, Any]], key: str) -> None:
    assert weights(planned(f"{key}=0.25")) == [0.6, 0.25]


def test_several_changes_are_made_in_order(planned: Callable[..., dict[str, Any]]) -> None:
    assert weights(planned("models[0].weight=0.1", "models[1].weight=2", "models[0].weight=0.3")) == [0.3, 2.0]


def test_an_option_where_the_config_has_no_options(planned: Callable[..., dict[str, Any]]) -> None:
    assert {tensor["dtype"] for tensor in planned("options.torch_dtype=float32")["files"][0]["tensors"]} == {"F32"}


def test_values_are_read_as_yaml(planned: Callable[..., dict[str, Any]], models: SimpleNamespace) -> None:
    whole = planned(f"models=[{{path: {models.a}, weight: 1e-3}}, {{path: {models.b}, name: 'no'}}]")
    assert weights(whole) == [0.001, 1.0]
    assert whole["models"][1]["name"] == "no"
    assert planned("options={torch_dtype: float16, seed: 3}")["strategy"] == "weighted"
    assert planned("options.max_shard_size=1KB", "options.preserve_tokenizer=false")["files"][1:]
    assert weights(planned('models[0].weight={"*.mlp.*": 0.3, default: [0, 1]}'))[0] == {
        "*.mlp.*": 0.3,
        "default": [0, 1],
    }
    assert planned("models[0].name=a=b")["models"][0]["name"] == "a=b"
    assert planned("models[0].name=نموذج")["models"][0]["name"] == "نموذج"


def test_nothing_behind_the_sign_is_as_if_left_out(command: Command, path: Path, models: SimpleNamespace) -> None:
    result = command("merge", path, "--set", "output_path=")
    assert result.status == 2
    assert "no output path" in result.err
    assert not models.output.exists()


def test_the_file_is_not_changed(command: Command, path: Path) -> None:
    before = path.read_bytes()
    command("plan", path, "--no-trial", "--set", "models[0].weight=0.9")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "options.torch_dtype",
            "--set wants KEY=VALUE, got 'options.torch_dtype'. For example --set options.scaling_factor=0.3",
        ),
        ("=3", "--set wants KEY=VALUE, got '=3'. For example --set options.scaling_factor=0.3"),
        ("models[2].weight=1", "--set models[2].weight=1: the list has entries 0 to 1, and not '2'"),
        ("models[-1].weight=1", "--set models[-1].weight=1: the list has entries 0 to 1, and not '-1'"),
        ("models[x]=1", "--set models[x]=1: the list has entries 0 to 1, and not 'x'"),
        ("models.weight=1", "--set models.weight=1: the list has entries 0 to 1, and not 'weight'"),
        ("strategy.name=1", "--set strategy.name=1: 'strategy' is not a mapping or list in the config"),
        ("models[0].path.x=1", "--set models[0].path.x=1: 'path' is not a mapping or list in the config"),
        ("modles[0].weight=1", "config: unknown key 'modles', did you mean 'models'?"),
        ("models[0].wieght=1", "models[0]: unknown key 'wieght', did you mean 'weight'?"),
        ("options.weight_decey=0.1", "options: unknown key 'weight_decey', did you mean 'weight_decay'?"),
        ("models[0].weight=abc", "models[0].weight: must be a number or a list or a mapping, got 'abc'"),
        (
            "models[0].weight='0.5'",
            "models[0].weight: must be a number or a list or a mapping, got '0.5'. Write it without quotes",
        ),
        ("options.seed=", "options.seed: must be a whole number, got nothing"),
        ("options.verbose=yes", "options.verbose: must be true or false, got 'yes'"),
        ("options=3", "options: must be a mapping, got 3"),
    ],
)
def test_a_mistake_is_one_sentence(command: Command, path: Path, change: str, sentence: str) -> None:
    result = command("check", path, "--set", change)
    assert (result.status, result.out, result.err) == (2, "", f"error: {sentence}\n")


@pytest.mark.parametrize(
    "value", ["[0.1", "{a:", "'open", "!!python/object:os.system x", "*alias", ".nan", "1\n2: 3", "a: b: c"]
)
def test_a_value_that_is_no_yaml_is_one_sentence_that_shows_it(command: Command, path: Path, value: str) -> None:
    result = command("check", path, "--set", f"models[0].weight={value}")
    assert result.status == 2
    (line,) = result.err.splitlines()
    assert line.startswith("error: --set models[0].weight=")
    assert "the value cannot be read: " in line or "must be a number" in line
    assert "line 1, column" not in line.split("the value cannot be read: ")[-1][:20]


def test_a_place_in_an_empty_list(command: Command, path: Path) -> None:
    result = command("check", path, "--set", "models=[]", "--set", "models[0].weight=1")
    assert result.err == "error: --set models[0].weight=1: the list is empty, so there is no '0' in it\n"


@pytest.mark.parametrize("value", ["1\nstrategy: slerp", "1\n--- {}", "1\r\nstrategy: slerp"])
def test_a_line_end_does_not_hide_what_is_behind_it(
    command: Command, path: Path, models: SimpleNamespace, value: str
) -> None:
    result = command("merge", path, "--set", f"options.seed={value}")

    assert result.status == 2
    (line,) = result.err.splitlines()
    assert "--set options.seed=1" in line
    assert not models.output.exists()


def test_a_value_may_have_lines(planned: Callable[..., dict[str, Any]]) -> None:
    planned("options.seed=\n  7")
