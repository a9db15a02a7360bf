"""A base with an adapter folded in is what PEFT's merge_and_unload makes, for every kind of change."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from plugins.peft_adapters.tiny_adapters import (
    by_peft,
    distance,
    make_adapter,
    make_base,
    merged,
    qwen2,
)
from safetensors.torch import load_file

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
LORAS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("qwen2", {}),
    "rslora": ("qwen2", {"use_rslora": True, "r": 5}),
    "patterns": (
        "qwen2",
        {"rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 3}, "alpha_pattern": {"^model.*v_proj": 9}},
    ),
    "dora": ("qwen2", {"use_dora": True}),
    "biases": ("qwen2", {"bias": "all"}),
    "lora_bias": ("qwen2", {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}),
    "modules_to_save": ("qwen2", {"modules_to_save": ["lm_head", "norm"]}),
    "head": ("qwen2", {"target_modules": ["lm_head", "up_proj"]}),
    "embedding": ("qwen2", {"target_modules": ["embed_tokens", "k_proj"]}),
    "embedding dora": ("qwen2", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "tokens": ("qwen2", {"trainable_token_indices": [3, 88, 64]}),
    "tokens of a tied embedding": ("llama", {"trainable_token_indices": [3, 88, 64]}),
    "tokens of a head": ("qwen2", {"trainable_token_indices": {"embed_tokens": [3, 5], "lm_head": [7, 1, 3]}}),
    "tied tokens tied by hand": ("llama", {"trainable_token_indices": {"embed_tokens": [3, 5], "lm_head": [3, 5]}}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "conv1d dora": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "use_dora": True}),
    "conv1d and linear": ("gpt2_untied", {"target_modules": ["c_proj", "lm_head"]}),
    "tied": ("llama", {"target_modules": ["gate_proj", "k_proj"]}),
    "experts": (
        "qwen3_moe",
        {
            "target_parameters": EXPERTS,
            "rank_pattern": {"experts.down_proj": 2},
            "alpha_pattern": {"gate_up_proj": 7},
        },
    ),
    "experts alone": (
        "qwen3_moe",
        {"target_modules": [], "target_parameters": ["experts.down_proj"], "use_rslora": True},
    ),
    "experts and router": (
        "mixtral",
        {"target_modules": ["v_proj"], "target_parameters": [*EXPERTS, "mlp.gate.weight"]},
    ),
    "experts of a stack": ("gpt_oss", {"target_modules": ["v_proj"], "target_parameters": EXPERTS}),
    "experts by what they were called": (
        "qwen3_moe",
        {"target_modules": ["v_proj", "gate", "gate_proj", "up_proj", "down_proj"], "use_rslora": True},
    ),
    "experts by the end of their name": ("gpt_oss", {"target_modules": [], "target_parameters": ["down_proj"]}),
    "experts among names of other models": (
        "mixtral",
        {"target_modules": [], "target_parameters": ["gate_up_proj", "mlp.gate.weight", "9.mlp.experts.down_proj"]},
    ),
    "tied embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", LORAS)
def test_lora_folds_as_peft_folds_it(bases: SimpleNamespace, tmp_path: Path, name: str) -> None:
    base, settings = getattr(bases, LORAS[name][0]), LORAS[name][1]
    adapter = make_adapter(tmp_path / "adapter", base, 1, **settings)
    found = merged(tmp_path / "merged", adapter, peft_config={"base_model_path": str(base)})
    assert distance(found, by_peft(base, adapter)) < 1e-6


def others() -> dict[str, Any]:
    from peft import IA3Config, LoHaConfig, LoKrConfig, VeraConfig

    layers = ["q_proj", "v_proj", "down_proj"]
    return {
        "ia3": IA3Config(target_modules=layers, feedforward_modules=["down_proj"]),
        "loha": LoHaConfig(r=4, alpha=6, target_modules=layers),
        "lokr": LoKrConfig(r=2, alpha=3, target_modules=layers, decompose_both=True),
        "lokr whole": LoKrConfig(r=32, alpha=3, target_modules=layers, decompose_factor=8),
        "vera": VeraConfig(r=5, target_modules=layers),
    }


@pytest.mark.parametrize("name", ["ia3", "loha", "lokr", "lokr whole", "vera"])
def test_other_kinds_fold_as_peft_folds_them(bases: SimpleNamespace, tmp_path: Path, name: str) -> None:
    adapter = make_adapter(tmp_path / "adapter", bases.qwen2, 1, config=others()[name])
    found = merged(tmp_path / "merged", adapter)
    assert distance(found, by_peft(bases.qwen2, adapter)) < 1e-6


def test_vera_of_a_conv1d_folds_as_peft_folds_it(bases: SimpleNamespace, tmp_path: Path) -> None:
    """c_attn is stored transposed, c_proj of the attention is square too."""
    from peft import VeraConfig

    config = VeraConfig(r=5, target_modules=["c_attn", "attn.c_proj"], fan_in_fan_out=True)
    adapter = make_adapter(tmp_path / "adapter", bases.gpt2, 1, config=config)
    assert distance(merged(tmp_path / "merged", adapter), by_peft(bases.gpt2, adapter)) < 1e-6


def test_several_adapters_of_a_directory_are_added_up(bases: SimpleNamespace, tmp_path: Path) -> None:
    root = make_adapter(tmp_path / "adapter", bases.qwen2, 1)
    other = make_adapter(root / "other", bases.qwen2, 2, r=3, target_modules=["k_proj", "q_proj"])
    found = merged(tmp_path / "merged", root, peft_config={"adapter_names": ["default", "other"]})
    assert distance(found, by_peft(bases.qwen2, root, other)) < 1e-6


@pytest.mark.parametrize("key", ["base_model_path", "base_model"])
def test_the_base_may_be_given_as_any_model_is(bases: SimpleNamespace, tmp_path: Path, key: str) -> None:
    """Here as a trainer's output directory, whose last checkpoint it is."""
    adapter = make_adapter(tmp_path / "adapter", bases.qwen2, 1)
    shutil.copytree(bases.qwen2, tmp_path / "trained" / "checkpoint-20")
    trained = str(tmp_path / "trained")
    given: dict[str, Any] = {"base_model": trained} if key == "base_model" else {"peft_config": {key: trained}}

    assert distance(merged(tmp_path / "merged", adapter, **given), by_peft(bases.qwen2, adapter)) < 1e-6


def test_full_models_and_adapters_are_merged_with_each_other(bases: SimpleNamespace, tmp_path: Path) -> None:
    """By a strategy that wants the base, which peft_config names."""
    adapter = make_adapter(tmp_path / "adapter", bases.qwen2, 1)
    full = make_base(tmp_path / "full", qwen2, 7)
    models = [{"path": str(full), "weight": 0.5}, {"path": str(adapter), "weight": 0.25}]
    peft = {"base_model_path": str(bases.qwen2)}
    found = merged(tmp_path / "merged", *models, strategy="task_arithmetic", peft_config=peft)
    folded = by_peft(bases.qwen2, adapter)
    base, tuned = (load_file(path / "model.safetensors") for path in (bases.qwen2, full))
    wanted = {
        name: (0.25 * base[name].double() + 0.5 * tuned[name].double() + 0.25 * folded[name].double()) for name in base
    }
    assert distance(found, wanted) < 1e-6


@pytest.mark.parametrize("given", [{"base_model": "base"}, {"peft_config": {"merge_adapters": False}}])
def test_task_arithmetic_takes_the_base_that_adapters_name(
    bases: SimpleNamespace, tmp_path: Path, given: dict[str, Any]
) -> None:
    adapters = [make_adapter(tmp_path / f"{seed}", bases.qwen2, seed) for seed in (1, 2)]
    given = {key: str(bases.qwen2) if value == "base" else value for key, value in given.items()}
    found = merged(tmp_path / "merged", *adapters, strategy="task_arithmetic", **given)
    base, *folded = (load_file(bases.qwen2 / "model.safetensors"), *(by_peft(bases.qwen2, path) for path in adapters))
    wanted = {name: sum(model[name].double() for model in folded) - base[name].double() for name in base}
    assert distance(found, wanted) < 1e-6


def test_slices_and_workers_change_no_bit(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapters = [make_adapter(tmp_path / f"{seed}", bases.qwen2, seed, use_dora=seed == 2) for seed in (1, 2)]
    merger = modelmerger.ModelMerger(
        modelmerger.MergeConfig(strategy="weighted", models=[{"path": str(path)} for path in adapters])
    )
    for checkpoint in merger.load_models().values():
        for name in ("model.layers.0.mlp.down_proj.weight", "model.layers.1.self_attn.v_proj.weight"):
            whole, elements = (
                read(checkpoint, name, [checkpoint.tensors[name].elements]),
                checkpoint.tensors[name].elements,
            )
            for step in (1000, 7 * 96, 4097):
                cuts = [*range(step, elements, step), elements]
                assert torch.equal(read(checkpoint, name, cuts), whole)


def read(checkpoint: Any, name: str, cuts: list[int]) -> torch.Tensor:
    dtype = {"F32": torch.float32, "F64": torch.float64}[checkpoint.tensors[name].dtype]
    slices = []
    for start, stop in zip([0, *cuts], cuts, strict=False):
        slices.append(torch.empty(stop - start, dtype=dtype))
        checkpoint.read(name, start, stop, slices[-1].view(torch.uint8).numpy().data)
    return torch.cat(slices)
