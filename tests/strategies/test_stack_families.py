"""Layers [0, 3) and [1, 4) of small models of many families, one on another: the stack loads in silence and computes what these
layers compute one after the other."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from inputs.tiny_models import load, write_tiny
from modelmerger import InputError, MergeConfig, ModelMerger, merge

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADS_OF_FOUR = SMALL | {"head_dim": 4}
SLIDING = {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"] * 2}
MAMBA = {"mamba_d_ssm": 16, "mamba_n_heads": 4, "mamba_d_head": 4, "mamba_d_state": 8, "mamba_chunk_size": 8}
LINEAR = {
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
}
FAMILIES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": SMALL | {"tie_word_embeddings": True, "attention_bias": True},
    "MistralForCausalLM": SMALL | {"sliding_window": 3},
    "Phi3ForCausalLM": SMALL,
    "Qwen2ForCausalLM": SMALL | {"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 3},
    "Qwen3ForCausalLM": HEADS_OF_FOUR,
    "Gemma2ForCausalLM": HEADS_OF_FOUR | SLIDING | {"query_pre_attn_scalar": 4},
    "Gemma3ForCausalLM": HEADS_OF_FOUR | SLIDING | {"query_pre_attn_scalar": 4},
    "Cohere2ForCausalLM": SMALL | SLIDING,
    "SmolLM3ForCausalLM": SMALL | {"no_rope_layer_interval": 2},
    "Olmo3ForCausalLM": SMALL | SLIDING,
    "Qwen3_5ForCausalLM": HEADS_OF_FOUR | LINEAR,
    "FalconH1ForCausalLM": HEADS_OF_FOUR | MAMBA,
    "Jais2ForCausalLM": HEADS_OF_FOUR,
}
ORDER = [0, 1, 2, 1, 2, 3]


def made(architecture: str, settings: dict[str, Any]) -> Any:
    """A model of the architecture; skipped where this transformers has none."""
    cls = getattr(transformers, architecture, None)
    if cls is None:
        pytest.skip(f"transformers {transformers.__version__} has no {architecture}")
    return cls(cls.config_class(**copy.deepcopy(settings)))


def stack(folder: Path) -> MergeConfig:
    models = [{"path": str(folder / "model"), "layers": layers} for layers in ([0, 3], [1, 4])]
    return MergeConfig(strategy="stack", models=models, output_path=str(folder / "stack"))


def by_hand(model: Any) -> Any:
    """The model with its layers one after the other, as modules, and its config as it is but for what lists layers."""
    deep = copy.deepcopy(model)
    deep.model.layers = torch.nn.ModuleList(copy.deepcopy(model.model.layers[number]) for number in ORDER)
    deep.config.num_hidden_layers = len(ORDER)
    if vars(model.config).get("layer_types") is not None:
        deep.config.layer_types = [model.config.layer_types[number] for number in ORDER]
    return deep


def logits(model: Any) -> torch.Tensor:
    """Without a cache, which would take two copies of a layer for one."""
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(3, 19).view(2, 8), use_cache=False).logits
    return found


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_stack_loads_in_silence_and_computes_what_its_layers_compute(tmp_path: Path, architecture: str) -> None:
    write_tiny(tmp_path / "model", made(architecture, FAMILIES[architecture]), 0)
    model, said_of_model = load(tmp_path / "model")

    merge(stack(tmp_path))
    stacked, said = load(tmp_path / "stack")

    assert said == said_of_model == []
    assert stacked.config.num_hidden_layers == len(stacked.model.layers) == len(ORDER)
    torch.testing.assert_close(logits(stacked), logits(by_hand(model)), rtol=1e-5, atol=1e-6)
    assert (logits(stacked) - logits(model)).abs().max() > 1e-3


def test_a_model_that_keeps_a_part_for_each_layer_in_one_matrix_is_refused(tmp_path: Path) -> None:
    settings = HEADS_OF_FOUR | {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 40,
        "num_kv_shared_layers": 0,
    }
    write_tiny(tmp_path / "model", made("Gemma4ForCausalLM", settings), 0)

    with pytest.raises(InputError, match="'hidden_size_per_layer_input' says that each layer has a part of one matrix"):
        ModelMerger(stack(tmp_path)).plan()
    assert not (tmp_path / "stack").exists()
