"""Small random models of many architectures: each merges, loads in silence, and computes what a float64 merge of it computes."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from inputs.tiny_models import load, write_tiny
from modelmerger import MergeConfig, ModelMerger, merge, verify

from tests.core.test_run_in_memory import assert_same

VOCABULARY = 40
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
HEADS_OF_FOUR = GROUPED | {"head_dim": 4}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
GEMMA = HEADS_OF_FOUR | {"query_pre_attn_scalar": 4, "sliding_window": 16}
IDS = torch.arange(3, 19).view(2, 8)
TEXT = {"input_ids": IDS}
ENCODED = TEXT | {"decoder_input_ids": IDS[:, :5]}
IMAGE = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)}
SOUND = {"input_features": torch.linspace(-1, 1, 2 * 8 * 32).view(2, 8, 32), "decoder_input_ids": IDS[:, :5]}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
}

ARCHITECTURES: dict[str, tuple[dict[str, Any], Mapping[str, torch.Tensor]]] = {
    "Qwen2ForCausalLM": (GROUPED, TEXT),
    "Qwen3ForCausalLM": (HEADS_OF_FOUR | {"tie_word_embeddings": True}, TEXT),
    "LlamaForCausalLM": (GROUPED, TEXT),
    "MistralForCausalLM": (GROUPED | {"sliding_window": 16}, TEXT),
    "Gemma2ForCausalLM": (GEMMA, TEXT),
    "Gemma3ForCausalLM": (GEMMA, TEXT),
    "Gemma3ForConditionalGeneration": (
        {"text_config": GEMMA, "vision_config": VISION | {"patch_size": 14}, "mm_tokens_per_image": 4},
        TEXT,
    ),
    "Cohere2ForCausalLM": (GROUPED | {"sliding_window": 16}, TEXT),
    "FalconH1ForCausalLM": (
        HEADS_OF_FOUR | {"mamba_d_ssm": 16, "mamba_n_heads": 4, "mamba_d_head": 4, "mamba_d_state": 8, "mamba_chunk_size": 8},
        TEXT,
    ),
    "Jais2ForCausalLM": (HEADS_OF_FOUR, TEXT),
    "GPT2LMHeadModel": (
        {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2},
        TEXT,
    ),
    "BertForMaskedLM": (SMALL, TEXT),
    "T5ForConditionalGeneration": (
        {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
        ENCODED,
    ),
    "WhisperForConditionalGeneration": (
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "max_target_positions": 16,
            "decoder_start_token_id": 1,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "suppress_tokens": [],
            "begin_suppress_tokens": [],
        },
        SOUND,
    ),
    "ViTForImageClassification": (
        {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16, "patch_size": 8, "num_labels": 3},
        IMAGE,
    ),
    "MixtralForCausalLM": (GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}, TEXT),
    "Qwen3MoeForCausalLM": (HEADS_OF_FOUR | EXPERTS | {"num_experts": 4}, TEXT),
}  # fmt: skip
STRATEGIES: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "weighted": lambda base, a, b: 0.75 * a + 0.25 * b,
    "task_arithmetic": lambda base, a, b: base + 0.75 * (a - base) + 0.25 * (b - base),
}


def outputs(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**inputs).logits
    return found


def write_three(folder: Path, architecture: str, settings: dict[str, Any]) -> dict[str, Path]:
    """`base`, and `a` and `b` near it."""
    import transformers

    cls = getattr(transformers, architecture)
    model = cls(cls.config_class(**copy.deepcopy(settings)))
    base = write_tiny(folder / "base", model, 0)
    near = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return {"base": base, "a": write_tiny(folder / "a", model, 1, near), "b": write_tiny(folder / "b", model, 2, near)}


WEIGHTED = ("Qwen3ForCausalLM", "Gemma3ForConditionalGeneration", "T5ForConditionalGeneration", "MixtralForCausalLM")
"""Tied, nested, with an encoder, and with experts; all are merged so in memory too, below."""


@pytest.mark.parametrize(
    ("architecture", "strategy"),
    [(name, "task_arithmetic") for name in ARCHITECTURES] + [(name, "weighted") for name in WEIGHTED],
)
def test_a_merge_loads_in_silence_and_computes_what_a_float64_merge_computes(
    tmp_path: Path, architecture: str, strategy: str
) -> None:
    """C6. The reference is made of the state dicts of the loaded models, whatever their files look like."""
    settings, inputs = ARCHITECTURES[architecture]
    paths = write_three(tmp_path, architecture, settings)
    entries = [{"path": str(paths["a"]), "weight": 0.75}, {"path": str(paths["b"]), "weight": 0.25}]
    base = {"base_model": str(paths["base"])} if strategy == "task_arithmetic" else {}
    merge(MergeConfig(strategy, entries, output_path=str(tmp_path / "merged"), **base))
    loaded = {name: load(path) for name, path in paths.items()}
    states = {name: model.state_dict() for name, (model, _) in loaded.items()}
    donor, said_of_donor = loaded["base" if base else "a"]
    exact = {
        name: STRATEGIES[strategy](*(states[model][name].double() for model in ("base", "a", "b"))).to(values.dtype)
        if values.is_floating_point()
        else values
        for name, values in states["a"].items()
    }
    donor = copy.deepcopy(donor)
    donor.load_state_dict(exact)

    model, said = load(tmp_path / "merged")

    assert json.loads((tmp_path / "merged/config.json").read_text())["architectures"] == [architecture]
    assert type(model).__name__ == architecture
    assert said == said_of_donor
    merged = model.state_dict()
    for name, values in exact.items():
        torch.testing.assert_close(merged[name], values, rtol=2**-23, atol=0, msg=name)
    torch.testing.assert_close(outputs(model, inputs), outputs(donor, inputs), rtol=1e-4, atol=1e-5)
    moved = outputs(model, inputs) - outputs(loaded["b"][0], inputs)
    assert moved.abs().max() > 1e-3
    verify(tmp_path / "merged")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_that_stays_in_memory_is_the_one_that_files_give(tmp_path: Path, architecture: str) -> None:
    paths = write_three(tmp_path, architecture, ARCHITECTURES[architecture][0])
    models = [{"path": str(paths["a"]), "weight": 0.75}, {"path": str(paths["b"]), "weight": 0.25}]
    in_memory = ModelMerger(MergeConfig("weighted", models))
    model = in_memory.merge()
    merge(MergeConfig("weighted", models, output_path=str(tmp_path / "merged")))

    assert in_memory.merge_report is not None
    assert in_memory.merge_report.in_memory
    assert_same(model, load(tmp_path / "merged")[0])
