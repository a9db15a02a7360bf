"""The option `torch_dtype`: what each value writes, what it leaves alone, and what config.json then says."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CONFIG, directory_state, random_tensors, write_model
from modelmerger import MergeConfig, merge
from safetensors.torch import load_file

from tests.strategies.references import assert_rounded_once

IDS = "model.position_ids"


def stored(models: SimpleNamespace, dtype: torch.dtype = torch.bfloat16) -> dict[str, dict[str, torch.Tensor]]:
    """Two models of a dtype, with a float32 norm and integers."""
    made = {}
    for seed, name in enumerate(("a", "b")):
        tensors = random_tensors(seed, dtype)
        tensors["model.norm.weight"] = tensors["model.norm.weight"].float() * 1.0001
        made[name] = tensors | {IDS: torch.arange(16)}
        write_model(getattr(models, name), made[name], CONFIG | {"text_config": {"dtype": "bfloat16"}})
    return made


@pytest.mark.parametrize("written", ["float64", "float32", "float16", "bfloat16"])
def test_every_floating_tensor_is_written_in_the_dtype_asked_for(
    models: SimpleNamespace, config: dict[str, Any], written: str
) -> None:
    tensors = stored(models)
    dtype = getattr(torch, written)

    merge(MergeConfig(**{**config, "options": {"torch_dtype": written}}))

    merged = load_file(models.output / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in merged.items()} == dict.fromkeys(merged, dtype) | {IDS: torch.int64}
    for name in set(merged) - {IDS}:
        exact = 0.6 * tensors["a"][name].double() + 0.4 * tensors["b"][name].double()
        magnitude = 0.6 * tensors["a"][name].double().abs() + 0.4 * tensors["b"][name].double().abs()
        if written != "float64":
            assert_rounded_once(merged[name], exact.numpy(), magnitude.numpy(), terms=2)
        torch.testing.assert_close(merged[name].double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-6)
    said = json.loads((models.output / "config.json").read_text())
    assert (said["torch_dtype"], said["text_config"]["dtype"]) == (written, written)


def test_auto_is_the_donors_tensor_by_tensor_and_the_config_names_most_of_them(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    stored(models)
    write_model(models.b, random_tensors(1, torch.float32) | {IDS: torch.arange(16)}, CONFIG)

    merge(MergeConfig(**{**config, "options": {"torch_dtype": "auto"}}))

    merged = load_file(models.output / "model.safetensors")
    assert {name for name, tensor in merged.items() if tensor.dtype == torch.float32} == {"model.norm.weight"}
    assert merged["model.layers.0.mlp.weight"].dtype == torch.bfloat16
    assert json.loads((models.output / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_value_that_float16_cannot_hold_ends_the_merge_before_anything_is_published(
    models: SimpleNamespace, config: dict[str, Any], command: Callable[..., SimpleNamespace]
) -> None:
    tensors = stored(models)
    for name in ("a", "b"):
        tensors[name]["model.layers.1.mlp.weight"][7, 3] = 70000.0
        write_model(getattr(models, name), tensors[name])
    path = models.folder / "merge.json"
    path.write_text(json.dumps({**config, "options": {"torch_dtype": "float16"}}))

    result = command("merge", path)

    assert result.status == 5
    assert result.err.startswith(
        "error: model.layers.1.mlp.weight: all inputs are finite, and the values do not fit in F16"
    )
    assert not models.output.exists()
    before = {name: directory_state(getattr(models, name)) for name in ("a", "b")}
    assert command("merge", path, "--set", "options.torch_dtype=bfloat16").status == 0
    assert before == {name: directory_state(getattr(models, name)) for name in ("a", "b")}
    assert load_file(models.output / "model.safetensors")["model.layers.1.mlp.weight"][7, 3] == 70144.0
