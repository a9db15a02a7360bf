"""Layers of several models, one on another, and `models[i].layers`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_model
from modelmerger import ConfigError, InputError, MergeConfig, ModelCompatibilityError, ModelMerger, merge
from safetensors.torch import load_file

CONFIG = {"model_type": "llama", "num_hidden_layers": 4}
LAYERS = "model.layers"


def model(value: float, layers: int = 4, *, head: bool = True) -> dict[str, torch.Tensor]:
    """A tensor of layer i holds value + 10·i; all others hold value."""
    found = {f"{LAYERS}.{i}.mlp.up_proj.weight": torch.full((2, 2), float(value + 10 * i)) for i in range(layers)}
    outside = ["model.embed_tokens.weight", "model.norm.weight", *(["lm_head.weight"] if head else [])]
    return {name: torch.full((2, 2), float(value)) for name in outside} | found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    types = ["a", "b", "c", "d"]
    write_model(tmp_path / "a", model(1), {**CONFIG, "layer_types": types})
    write_model(tmp_path / "b", model(2), {**CONFIG, "layer_types": [kind.upper() for kind in types]})
    return tmp_path


def made(**config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Name → the number that the tensor holds, and config.json."""
    config.setdefault("options", {})["check_loading"] = False
    merge(MergeConfig(output_path="./out", **config))
    found = {name: tensor.unique().tolist() for name, tensor in load_file("out/model.safetensors").items()}
    return {name: value[0] for name, value in found.items()}, json.loads(Path("out/config.json").read_text())


def depth(found: dict[str, Any]) -> list[float]:
    return [found[f"{LAYERS}.{i}.mlp.up_proj.weight"] for i in range(len(found) - 3)]


@pytest.mark.usefixtures("place")
def test_layers_lie_one_on_another_between_the_first_and_the_last_model() -> None:
    found, config = made(
        strategy="stack", models=[{"path": "./a", "layers": [0, 3]}, {"path": "./b", "layers": [1, 4]}]
    )
    assert depth(found) == [1, 11, 21, 12, 22, 32]
    assert [found[f"{name}.weight"] for name in ("model.embed_tokens", "model.norm", "lm_head")] == [1, 2, 2]
    assert (config["num_hidden_layers"], config["layer_types"]) == (6, ["a", "b", "c", "B", "C", "D"])


@pytest.mark.usefixtures("place")
def test_parts_may_differ_in_depth_and_layers_in_kind() -> None:
    found, config = made(
        strategy="stack", models=[{"path": "./a", "layers": [0, 1]}, {"path": "./b"}, {"path": "./a", "layers": [3]}]
    )
    assert depth(found) == [1, 2, 12, 22, 32, 31]
    assert (config["num_hidden_layers"], config["layer_types"]) == (6, ["a", "A", "B", "C", "D", "d"])


@pytest.mark.usefixtures("place")
def test_one_model_several_times_in_any_order() -> None:
    models = [{"path": "./a", "layers": [3, 0, 0]}, {"path": "./a", "layers": [[1, 3], 1]}]
    found, config = made(strategy="stack", models=models)
    assert depth(found) == [31, 1, 1, 11, 21, 11]
    assert config["layer_types"] == ["d", "a", "a", "b", "c", "b"]


@pytest.mark.usefixtures("place")
def test_a_merge_of_layers_is_a_part_of_a_stack_and_a_stack_a_model_of_a_merge() -> None:
    for name in "ab":
        Path(name, "config.json").write_text(json.dumps(CONFIG))
    mean = {"strategy": "weighted", "models": [{"path": "./a", "layers": [0, 2]}, {"path": "./b", "layers": [2, 4]}]}
    stack = {"strategy": "stack", "models": [{"merge": mean}, {"path": "./a", "layers": [2, 4]}]}
    config = {"strategy": "weighted", "models": [{"merge": stack, "weight": 3.0}, {"path": "./b"}]}
    found, _ = made(**config)
    assert depth(found) == [(3 * x + y) / 4 for x, y in zip([11.5, 21.5, 21, 31], [2, 12, 22, 32], strict=True)]
    assert found["model.embed_tokens.weight"] == (3 * 1.5 + 2) / 4
    assert found["model.norm.weight"] == (3 * 1 + 2) / 4


@pytest.mark.usefixtures("place")
def test_layers_of_a_base_come_through_a_merge_of_one_model() -> None:
    Path("b/config.json").write_text(Path("a/config.json").read_text())
    base = {"merge": {"strategy": "passthrough", "models": [{"path": "./a", "layers": [1, 3]}]}}
    found, config = made(
        strategy="task_arithmetic", base_model=base, models=[{"path": "./b", "layers": [1, 3], "weight": 2.0}]
    )
    assert (depth(found), config["num_hidden_layers"], config["layer_types"]) == ([13, 23], 2, ["b", "c"])


def test_a_tied_last_model_lends_its_embedding_where_another_has_a_head(place: Path) -> None:
    write_model(place / "tied", model(3, head=False), {**CONFIG, "tie_word_embeddings": True})
    write_model(place / "plain", model(1), {**CONFIG, "tie_word_embeddings": False})
    found, _ = made(
        strategy="stack", models=[{"path": "./plain", "layers": [0, 1]}, {"path": "./tied", "layers": [0, 1]}]
    )
    assert found["lm_head.weight"] == 3


@pytest.mark.usefixtures("place")
def test_layers_of_two_kinds_are_not_merged_with_each_other() -> None:
    config = MergeConfig(
        strategy="weighted", models=[{"path": "./a", "layers": [0, 2]}, {"path": "./a", "layers": [1, 3]}]
    )
    with pytest.raises(ModelCompatibilityError, match="layer 0 is a 'b' here and a 'a' in"):
        ModelMerger(config).plan()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("layers", [[3, 1], [-1, 2], [2, 2], [], "0", [0.0, 2.0]])
def test_what_is_no_range_is_refused_with_its_place(layers: Any) -> None:
    with pytest.raises(ConfigError, match=r"^models\[0\]\.layers"):
        MergeConfig(strategy="stack", models=[{"path": "./a", "layers": layers}])


@pytest.mark.usefixtures("place")
def test_a_layer_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(InputError, match=r"has no layer 4 of 'model.layers'; its layers are 4, from 0 to 3"):
        ModelMerger(MergeConfig(strategy="stack", models=[{"path": "./a", "layers": [2, 5]}])).plan()


def test_several_stacks_want_a_prefix(place: Path) -> None:
    tower = {f"vision.layers.{i}.w": torch.full((2, 2), 7.0) for i in range(4)}
    write_model(place / "seeing", model(1) | tower, CONFIG)
    config = {"strategy": "stack", "models": [{"path": "./seeing"}, {"path": "./seeing"}]}
    with pytest.raises(ModelCompatibilityError, match="more than one stack of layers"):
        ModelMerger(MergeConfig(**config)).plan()
    found, config = made(**config, options={"prefix": LAYERS})
    assert config["num_hidden_layers"] == 8
    assert [name for name in found if name.startswith("vision")] == [f"vision.layers.{i}.w" for i in range(4)]


def test_a_stack_with_as_many_layers_as_the_config_says_is_meant(place: Path) -> None:
    further = {"mtp.layers.0.w": torch.full((2, 2), 7.0)}
    write_model(place / "guessing", model(1) | further, CONFIG)
    models = [{"path": "./guessing", "layers": [0, 3]}, {"path": "./guessing", "layers": [1, 3]}]
    found, config = made(strategy="stack", models=models)
    assert found.pop("mtp.layers.0.w") == 7
    assert (depth(found), config["num_hidden_layers"]) == ([1, 11, 21, 11, 21], 5)
