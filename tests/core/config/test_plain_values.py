"""Values of numpy and torch in a config are taken as what they are, and texts never as anything else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelmerger import ConfigError, MergeConfig, merge_tensors
from modelmerger.config.plain_values import plain

PLAIN = {
    "path": (Path("a/b"), "a/b"),
    "numpy float": (np.float64(0.25), 0.25),
    "numpy float32": (np.float32(0.1), 0.10000000149011612),
    "numpy half": (np.float16(0.5), 0.5),
    "numpy integer": (np.int32(3), 3),
    "numpy truth": (np.bool_(True), True),
    "numpy text": (np.str_("auto"), "auto"),
    "numpy scalar array": (np.array(0.5), 0.5),
    "numpy vector": (np.array([0.25, 1]), [0.25, 1.0]),
    "numpy dtype": (np.dtype("float16"), "float16"),
    "numpy scalar type": (np.float32, "float32"),
    "torch scalar": (torch.tensor(0.25), 0.25),
    "torch parameter": (torch.nn.Parameter(torch.tensor(0.25)), 0.25),
    "torch bfloat16": (torch.tensor(0.25, dtype=torch.bfloat16), 0.25),
    "torch integer": (torch.tensor(3), 3),
    "torch truth": (torch.tensor(False), False),
    "torch vector": (torch.tensor([0.25, 1.0]), [0.25, 1.0]),
    "torch dtype": (torch.float16, "float16"),
    "torch bfloat16 dtype": (torch.bfloat16, "bfloat16"),
    "torch device": (torch.device("cuda:1"), "cuda:1"),
}


@pytest.mark.parametrize(("given", "expected"), PLAIN.values(), ids=PLAIN)
def test_values_of_other_libraries_become_plain(given: Any, expected: Any) -> None:
    for found in (plain(given), plain({"a": [given]})["a"][0], plain({"a": ({"b": given},)})["a"][0]["b"]):
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize("given", ["0.4", "no", "torch.float16", "./a", 1, 0.5, True, None, [1, "a"], {"a": (1, 2)}])
def test_plain_data_is_handed_back_as_it_is(given: Any) -> None:
    assert plain(given) is given


def test_models_in_memory_are_left_alone() -> None:
    """Also one with a tensor without dimensions in it."""
    state = {"w": torch.ones(2), "num_batches_tracked": torch.tensor(3)}
    given = {"models": [{"path": state, "weight": torch.tensor(0.5)}], "base_model": state}

    found = plain(given)

    assert found["models"][0]["path"] is state
    assert found["base_model"] is state
    assert found["models"][0]["weight"] == 0.5


def test_a_matrix_is_no_value_of_a_config() -> None:
    for matrix in (torch.ones(2, 2), np.ones((2, 2)), torch.ones(2, device="meta")):
        assert plain(matrix) is matrix
        with pytest.raises(ConfigError, match=r"models\[0\]\.weight: must be a number"):
            MergeConfig(strategy="weighted", models=[{"path": "./a", "weight": matrix}])


def test_a_config_takes_them_wherever_they_may_stand(tmp_path: Path) -> None:
    inner = {"strategy": "weighted", "models": [{"path": Path("c"), "weight": np.float32(0.5)}]}
    config = MergeConfig(
        strategy="task_arithmetic",
        models=(
            {"path": Path("a"), "weight": np.float64(0.5)},
            {"path": "./b", "weight": torch.tensor([0.25, 1.0])},
            {"path": "./d", "weight": {"*.mlp.*": (torch.tensor(0.5), 1), "default": np.int64(1)}},
            {"merge": inner},
        ),
        base_model=Path("base"),
        options={"torch_dtype": torch.float16, "scaling_factor": np.float32(0.5), "seed": np.int64(7),
                 "clamp_weights": np.bool_(True), "clamp_range": (np.float32(-1), torch.tensor(1.0)),
                 "device_map": torch.device("cpu")},
        validation={"run_tests": np.bool_(False), "sample_size": np.int16(3), "test_prompts": ["one", "two"]},
    )  # fmt: skip
    settings, _ = config.resolved()
    assert [model.weight for model in settings.models[:3]] == [
        0.5,
        (0.25, 1.0),
        {"*.mlp.*": (0.5, 1.0), "default": 1.0},
    ]
    assert settings.merges["models[3].path"].models[0].weight == 0.5
    assert (settings.options.torch_dtype, settings.options.device_map, settings.options.seed) == ("float16", "cpu", 7)
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert MergeConfig.from_file(file).resolved()[0].given == settings.given

    config.options["torch_dtype"] = torch.bfloat16
    assert config.resolved()[0].options.torch_dtype == "bfloat16"


@pytest.mark.parametrize("weight", ["0.4", np.str_("0.4"), "no", True, np.bool_(True), torch.tensor(True)])
def test_nothing_is_coerced(weight: Any) -> None:
    with pytest.raises(ConfigError, match=r"models\[0\]\.weight"):
        MergeConfig(strategy="weighted", models=[{"path": "./a", "weight": weight}])


def test_merges_of_tensors_take_them_too() -> None:
    models = [{"w": torch.ones(2)}, {"w": torch.zeros(2)}]

    merged = merge_tensors(
        "weighted",
        models,
        weights=(np.float32(0.25), torch.tensor(0.75)),
        options={"torch_dtype": torch.float16, "weight_decay": np.float64(0.0), "offload_folder": Path("scratch")},
    )

    assert torch.equal(merged["w"], torch.full((2,), 0.25, dtype=torch.float16))
    base = {"w": torch.zeros(2)}
    options = ({"operation": np.str_("subtract")}, {})
    told = merge_tensors("task_arithmetic", models, base, model_options=options, weights=np.array([0.5, 1.0]))
    assert torch.equal(told["w"], torch.full((2,), -0.5))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"options": 3}, "options: must be a mapping, got int"),
        ({"options": [1]}, "options: must be a mapping, got list"),
        ({"model_options": 3}, "model_options: must be a list of mappings, one a model, got int"),
        ({"model_options": {"a": 1}}, "model_options: must be a list of mappings, one a model, got dict"),
        ({"model_options": [3, {}]}, "model_options[0]: must be a mapping, got int"),
        ({"weights": 3}, "weights: must be a list of weights, one a model, got one number"),
        ({"options": 3, "out": {"w": torch.ones(2)}}, "options: must be a mapping, got int"),
    ],
)
def test_what_is_no_option_is_a_sentence(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        merge_tensors("weighted", [{"w": torch.ones(2)}, {"w": torch.zeros(2)}], **arguments)
    assert str(raised.value).startswith(said)
