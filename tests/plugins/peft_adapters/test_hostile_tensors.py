"""Tensors of an adapter that have no shape that means anything: a sentence for each, and never a traceback."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from modelmerger import InputError, PluginError
from plugins.peft_adapters.spoiling import change, change_tensors, merger
from plugins.peft_adapters.tiny_adapters import make_adapter
from safetensors.torch import load_file, save_file

STRANGE = [(), (7,), (0,), (0, 0), (0, 80), (80, 0), (1, 1, 1), (2, 0, 3, 4, 5)]


def adapters() -> dict[str, tuple[str, dict[str, Any]]]:
    from peft import IA3Config, LoHaConfig, LoKrConfig, VeraConfig

    layers = ["layers.0.self_attn.q_proj", "layers.0.mlp.down_proj"]
    return {
        "lora": ("qwen2", {"target_modules": layers}),
        "bias": ("qwen2", {"target_modules": layers[:1], "lora_bias": True}),
        "square": ("qwen2", {"target_modules": ["layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj"]}),
        "dora": ("qwen2", {"target_modules": layers, "use_dora": True}),
        "embedding": ("qwen2", {"target_modules": ["embed_tokens"], "use_dora": True}),
        "tokens": ("qwen2", {"target_modules": layers[:1], "trainable_token_indices": [3, 5]}),
        "whole": ("qwen2", {"target_modules": layers[:1], "modules_to_save": ["norm"]}),
        "experts": ("qwen3_moe", {"target_modules": [], "target_parameters": ["layers.0.mlp.experts.down_proj"]}),
        "ia3": ("qwen2", {"config": IA3Config(target_modules=layers, feedforward_modules=layers[1:])}),
        "loha": ("qwen2", {"config": LoHaConfig(r=2, target_modules=layers)}),
        "lokr": ("qwen2", {"config": LoKrConfig(r=2, target_modules=layers, decompose_both=True)}),
        "vera": ("qwen2", {"config": VeraConfig(r=2, target_modules=layers)}),
    }


@pytest.mark.parametrize("kind", adapters())
def test_each_tensor_of_a_strange_shape_is_refused(bases: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    name, settings = adapters()[kind]
    adapter = make_adapter(tmp_path / "adapter", getattr(bases, name), 1, **settings)
    file = adapter / "adapter_model.safetensors"
    sound = load_file(file)
    merging = merger(adapter)
    merging.check_compatibility()
    for key in sound:
        for shape in STRANGE:
            save_file(sound | {key: torch.zeros(shape)}, file, metadata={"format": "pt"})
            with pytest.raises(InputError) as refusal:
                merging.check_compatibility()
            assert not isinstance(refusal.value, PluginError)
            assert all(len(line) <= 400 and "Error" not in line for line in refusal.value.lines()), (key, shape)


RANKS = [
    {"r": 0},
    {"r": 0, "use_rslora": True},
    {"r": 0, "lora_alpha": float("inf")},
    {"r": 0, "alpha_pattern": {"q_proj": float("nan")}},
    {"r": 4, "rank_pattern": {"q_proj": 0, "down_proj": 0, "embed_tokens": 0, "k_proj": 0}},
    {"r": -1},
    {"r": 10**4000},
]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [(RANKS[0], kind) for kind in adapters() if kind not in ("ia3", "vera")]
    + [(fields, kind) for fields in RANKS[1:] for kind in ("lora", "experts", "loha", "lokr")],
)
def test_ranks_of_0_are_refused(bases: SimpleNamespace, tmp_path: Path, fields: dict[str, Any], kind: str) -> None:
    """With factors that have no elements, as the rank says."""
    name, settings = adapters()[kind]
    adapter = make_adapter(tmp_path / "adapter", getattr(bases, name), 1, **settings)

    def empty(tensors: dict[str, torch.Tensor]) -> None:
        for key, tensor in tensors.items():
            if key.endswith(("lora_A.weight", "lora_embedding_A", "hada_w1_b", "hada_w2_b")):
                tensors[key] = tensor[:0].clone()
            if key.endswith(("lora_B.weight", "lora_embedding_B", "hada_w1_a", "hada_w2_a")):
                tensors[key] = tensor[:, :0].clone()

    change_tensors(adapter, empty)
    change(adapter, **fields)
    with pytest.raises(InputError, match=r"has (the )?rank (0|10*\.\.\.0*|-1)|is no number in JSON") as refusal:
        merger(adapter).check_compatibility()
    assert all(len(line) <= 400 for line in refusal.value.lines())


def rows(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.norm.token_adapter.trainable_tokens_delta"] = torch.zeros(2, 80)


def rows_of_a_vector(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.norm.token_adapter.trainable_tokens_delta"] = torch.zeros(2)


@pytest.mark.parametrize("edit", [rows, rows_of_a_vector])
def test_rows_of_what_is_no_matrix(adapter: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    change_tensors(adapter, edit)
    change(adapter, trainable_token_indices={"norm": [1, 2]})
    with pytest.raises(InputError, match=r"norm.token_adapter.*where rows of \[80\], as 'base' has, are due"):
        merger(adapter).check_compatibility()


def test_a_parameter_of_no_experts(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text("{}")
    save_file({"mlp.experts.down_proj": torch.zeros(0, 6, 8)}, base / "model.safetensors", metadata={"format": "pt"})
    factors = {
        "base_model.model.mlp.experts.lora_A.weight": torch.zeros(0, 8),
        "base_model.model.mlp.experts.lora_B.weight": torch.zeros(6, 0),
    }
    save_file(factors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    change(adapter, peft_type="LORA", r=2, lora_alpha=2, target_parameters=["experts.down_proj"])
    change(adapter, base_model_name_or_path=str(base))
    with pytest.raises(InputError, match=r"mlp.experts.down_proj of 'base' has shape \[0, 6, 8\], no expert"):
        merger(adapter).check_compatibility()


def test_more_target_parameters_than_any_model_has_names(adapter: Path) -> None:
    change(adapter, target_parameters=[f"a.{number}" for number in range(1001)])
    with pytest.raises(InputError, match="has 1001 target_parameters, at most 1000 are read"):
        merger(adapter).check_compatibility()
