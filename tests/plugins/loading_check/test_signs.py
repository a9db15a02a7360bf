"""Signs in names alone: they are seen where they are, and never in models that load."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from modelmerger_plugins.loading_check.signs import WRAPPERS, signs
from safetensors import safe_open

from tests.plugins.loading_check.conftest import CONFIG, llama
from tests.plugins.loading_check.test_loading import MODELS


@pytest.mark.parametrize("architecture", MODELS)
def test_none_in_a_model_as_transformers_saves_it(tmp_path: Path, architecture: str) -> None:
    import transformers

    cls = getattr(transformers, architecture)
    cls(cls.config_class(**copy.deepcopy(MODELS[architecture]))).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert list(signs(list(file.keys()), json.loads((tmp_path / "config.json").read_text()))) == []


@pytest.mark.parametrize("part", WRAPPERS)
def test_the_prefix_of_a_wrapper_is_one_problem(part: str) -> None:
    (problem,) = signs([f"{part}.{name}" for name in llama()], CONFIG)
    assert f"'{part}.', which {WRAPPERS[part]} puts around a model" in problem.message
    assert problem.severity == "error"
    assert len(str(problem)) <= 300 - len("error: ")


def test_a_wrapper_inside_is_seen_too() -> None:
    (problem,) = signs([name.replace("model.layers", "model._orig_mod.layers") for name in llama()], CONFIG)
    assert "_orig_mod." in problem.message
    assert list(signs(["base.module.weight", *llama()], CONFIG)) == []


def test_a_part_in_front_of_most_names_that_the_class_has_not() -> None:
    """As a model with a head for values around it leaves them."""
    head = ["v_head.summary.weight", "v_head.summary.bias"]
    names = [*(f"pretrained_model.{name}" for name in llama()), *head]
    (problem,) = signs(names, CONFIG)
    assert "under names with 'pretrained_model.', and no module of the class in config.json is called so" in str(
        problem
    )
    assert list(signs([*llama(), *head], CONFIG)) == []


@pytest.mark.parametrize("claimed", [1, 3])
def test_another_number_of_layers_is_one_problem(claimed: int) -> None:
    (problem,) = signs(list(llama()), CONFIG | {"num_hidden_layers": claimed})
    assert f"num_hidden_layers is {claimed} in" in problem.message
    assert "2 layers (model.layers)" in problem.message


@pytest.mark.parametrize(
    "told",
    [
        {"num_hidden_layers": 1, "num_nextn_predict_layers": 1},
        {"num_hidden_layers": 3, "decoder_layers": 2},
        {"num_hidden_layers": 3, "text_config": {"num_hidden_layers": 2}},
        {"num_hidden_layers": "3"},
        {"num_hidden_layers": True},
    ],
    ids=str,
)
def test_what_may_be_meant_otherwise_is_no_sign(told: dict[str, Any]) -> None:
    assert list(signs(list(llama()), CONFIG | told)) == []


def test_layers_of_two_stacks_are_no_sign() -> None:
    assert list(signs([*llama(), "mtp.layers.0.weight"], CONFIG | {"num_hidden_layers": 3})) == []
