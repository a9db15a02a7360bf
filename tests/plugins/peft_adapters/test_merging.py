"""Adapters merged into an adapter: what PEFT loads of it is the weighted sum of what PEFT makes of each, in float64."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from plugins.peft_adapters.tiny_adapters import by_peft, make_adapter, shake
from plugins.peft_adapters.updates import EXPERTS, Deltas, combined, deltas, distance, merge, slerped
from safetensors.torch import load_file, save_file

STRATEGIES: dict[str, tuple[dict[str, Any], list[float], list[float]]] = {
    "weighted": ({}, [0.5, 0.25, 0.75], [1 / 3, 1 / 6, 1 / 2]),
    "not normalised": ({"options": {"normalize_weights": False}}, [0.5, -0.25, 1.5], [0.5, -0.25, 1.5]),
    "decayed": ({"options": {"weight_decay": 0.1}}, [1, 1, 2], [0.225, 0.225, 0.45]),
    "sequential": ({"strategy": "sequential"}, [1, 0.5, 0.25], [0.375, 0.375, 0.25]),
    "task_arithmetic": (
        {"strategy": "task_arithmetic", "options": {"scaling_factor": 0.5}},
        [1, -0.5, 2],
        [0.5, -0.25, 1],
    ),
    "cat": ({"options": {"merge_method": "cat"}}, [1, 1, 1], [1 / 3, 1 / 3, 1 / 3]),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_linear_strategies_add_up_updates(bases: SimpleNamespace, three: list[Path], tmp_path: Path, name: str) -> None:
    config, weights, coefficients = STRATEGIES[name]
    report = merge(tmp_path / "merged", three, weights, **config)
    wanted = combined([deltas(bases.qwen2, path) for path in three], coefficients)
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6
    assert report.relative_error is not None
    assert report.relative_error < 1e-6


def test_subtracting_takes_an_update_away(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    models = [{"path": str(three[0])}, {"path": str(three[1]), "weight": -0.5, "operation": "subtract"}]
    config = modelmerger.MergeConfig(
        strategy="task_arithmetic",
        models=models,
        output_path=str(tmp_path / "merged"),
        peft_config={"merge_adapters": True, "base_model_path": str(bases.qwen2)},
    )
    modelmerger.merge(config)
    wanted = combined([deltas(bases.qwen2, path) for path in three[:2]], [1, -0.5])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


@pytest.mark.parametrize("normalize", [True, False])
def test_slerp_turns_updates_along_the_arc(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path, normalize: bool
) -> None:
    options = {"interpolation_factor": 0.3, "normalize_before_slerp": normalize}
    merge(tmp_path / "merged", [three[0], three[2]], strategy="slerp", options=options)
    ours, theirs = deltas(bases.qwen2, three[0]), deltas(bases.qwen2, three[2])
    wanted = {name: slerped(ours[name], theirs[name], 0.3, normalize) for name in ours}
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


KINDS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "embedding": (
        "qwen2",
        [{"target_modules": ["embed_tokens", "k_proj"]}, {"r": 3, "target_modules": ["embed_tokens"]}],
    ),
    "tied": ("llama", [{"target_modules": ["gate_proj", "k_proj"]}, {"target_modules": ["k_proj"], "r": 2}]),
    "tied embedding": ("llama", [{"target_modules": ["embed_tokens", "q_proj"]}, {"target_modules": ["q_proj"]}]),
    "conv1d": (
        "gpt2",
        [
            {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
            {"target_modules": ["c_fc"], "fan_in_fan_out": True, "r": 7},
        ],
    ),
    "biases": ("qwen2", [{"bias": "all"}, {"bias": "lora_only"}]),
    "lora_bias": (
        "qwen2",
        [{"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}, {"target_modules": ["v_proj"]}],
    ),
    "modules_to_save": ("qwen2", [{"modules_to_save": ["lm_head", "norm"]}, {"modules_to_save": ["norm"]}]),
    "saved and updated": ("qwen2", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["lm_head", "q_proj"]}]),
    "tokens": ("qwen2", [{"trainable_token_indices": [3, 88, 64]}, {"trainable_token_indices": [7, 64]}]),
    "experts": (
        "qwen3_moe",
        [
            {"target_parameters": EXPERTS, "rank_pattern": {"k_proj": 2}, "target_modules": ["k_proj"]},
            {"target_parameters": EXPERTS, "r": 3},
            {"target_modules": ["k_proj"]},
        ],
    ),
    "experts and router": ("mixtral", [{"target_modules": [], "target_parameters": [*EXPERTS, "gate.weight"]}] * 2),
    "experts of a stack": (
        "gpt_oss",
        [{"target_parameters": EXPERTS}, {"target_parameters": EXPERTS, "use_rslora": True}],
    ),
    "tokens by module": ("qwen2", [{"trainable_token_indices": {"embed_tokens": [3, 88]}}, {}]),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_update(bases: SimpleNamespace, tmp_path: Path, name: str) -> None:
    kind, settings = KINDS[name]
    base = getattr(bases, kind)
    adapters = [make_adapter(tmp_path / f"{i}", base, i, **each) for i, each in enumerate(settings)]
    merge(tmp_path / "merged", adapters, [2, 1, 0][: len(adapters)])
    wanted = combined([deltas(base, path) for path in adapters], [2 / 3, 1 / 3, 0][: len(adapters)])
    assert distance(deltas(base, tmp_path / "merged"), wanted) < 1e-5


def test_a_weight_of_0_leaves_no_trace(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    """Of the second, which alone changes up_proj; an adapter of weight 0 is not read."""
    merge(tmp_path / "merged", three[:2], [1, 0])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), deltas(bases.qwen2, three[0])) < 1e-6
    config = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    assert "up_proj" not in config["target_modules"]


def test_weights_by_layer_and_pattern(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    weights = [{"*layers.0.*": 1.0, "default": 0.25}, {"*q_proj*": [0, 2.0], "default": 1}]
    merge(tmp_path / "merged", [three[0], three[2]], weights, options={"normalize_weights": False})
    ours, theirs = deltas(bases.qwen2, three[0]), deltas(bases.qwen2, three[2])
    wanted = {
        name: (1.0 if ".layers.0." in name else 0.25) * ours[name]
        + ((0.0 if ".layers.0." in name else 2.0) if "q_proj" in name else 1.0) * theirs[name]
        for name in ours
    }
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


def test_matrices_that_options_keep_have_no_update(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapters = [
        make_adapter(tmp_path / f"{seed}", bases.qwen2, seed, target_modules=["embed_tokens", "lm_head", "k_proj"])
        for seed in (1, 2)
    ]
    merge(tmp_path / "merged", adapters, options={"merge_embeddings": False, "merge_lm_head": False})
    wanted = combined([deltas(bases.qwen2, path) for path in adapters], [0.5, 0.5])
    wanted |= {name: 0 * wanted[name] for name in wanted if "embed_tokens" in name or "lm_head" in name}
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


def test_slerp_of_experts_has_an_angle_for_each_tensor_of_the_files(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapters = [
        make_adapter(tmp_path / f"{seed}", bases.qwen3_moe, seed, target_modules=[], target_parameters=EXPERTS)
        for seed in (1, 2)
    ]
    options = {"preserve_base_model": False, "interpolation_factor": 0.3}
    merge(tmp_path / "merged", adapters, strategy="slerp", options=options)
    before, after = (load_file(path / "model.safetensors") for path in (bases.qwen3_moe, tmp_path / "merged"))
    ours, theirs = (by_peft(bases.qwen3_moe, path) for path in adapters)
    for name, tensor in before.items():
        update = slerped(ours[name].double() - tensor, theirs[name].double() - tensor, 0.3, True)
        assert float((after[name] - tensor - update).norm()) <= 1e-5 * float(tensor.norm())


def test_several_adapters_of_a_model_count_as_one(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    """`adapter_names`: their updates are added up, and the model's weight is that of the sum."""
    root = tmp_path / "root"
    shutil.copytree(three[0], root)
    shutil.copytree(three[1], root / "other")
    shutil.copytree(three[2], tmp_path / "second")
    shutil.copytree(three[2], tmp_path / "second" / "other")
    peft = {"merge_adapters": True, "adapter_names": ["default", "other"]}
    merge(tmp_path / "merged", [root, tmp_path / "second"], [3, 1], peft_config=peft)
    wanted = combined([deltas(bases.qwen2, path) for path in three], [0.75, 0.75, 0.5])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


class Convolutions(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.points = torch.nn.Conv2d(3, 70, (3, 2)), torch.nn.Conv2d(5, 4, 1)
        self.sound = torch.nn.Conv1d(4, 66, 3)


@pytest.mark.parametrize("writes", ["adapter", "model"])
def test_convolutions(tmp_path: Path, writes: str) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(0)
    base = Convolutions()
    (tmp_path / "base").mkdir()
    save_file(base.state_dict(), tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "base" / "config.json").write_text("{}")

    def folded(adapter: Path) -> Deltas:
        model = Convolutions()
        model.load_state_dict(base.state_dict())
        return dict(PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict())

    for seed, targets in enumerate((["image", "points", "sound"], ["image", "sound"])):
        adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=seed + 2, lora_alpha=5, target_modules=targets))
        shake(adapted, seed)
        adapted.save_pretrained(tmp_path / f"{seed}")
    paths = [tmp_path / "0", tmp_path / "1"]
    peft = {"merge_adapters": True, "base_model_path": str(tmp_path / "base")}
    merge(tmp_path / "merged", paths, [1, 2], peft_config=peft, options={"preserve_base_model": writes == "adapter"})
    ours, theirs = (folded(path) for path in paths)
    wanted = {name: ours[name] / 3 + theirs[name] * (2 / 3) for name in ours}
    merged = tmp_path / "merged"
    found = folded(merged) if writes == "adapter" else load_file(merged / "model.safetensors")
    assert distance(found, wanted) < 1e-6
    assert distance(dict(base.state_dict()), wanted) > 1e-2
