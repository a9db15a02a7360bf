"""A Llama of two layers as a directory, without building the model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model

HIDDEN, INNER, WORDS, LAYERS = 8, 12, 20, 2
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": WORDS,
    "tie_word_embeddings": False,
}


def llama(layers: int = LAYERS, *, head: bool = True, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Tensors as transformers' LlamaForCausalLM has them in a file."""
    shapes = {"model.embed_tokens.weight": (WORDS, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(layers):
        inside = {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
            "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (INNER, HIDDEN),
            "mlp.up_proj": (INNER, HIDDEN),
            "mlp.down_proj": (HIDDEN, INNER),
            "input_layernorm": (HIDDEN,),
            "post_attention_layernorm": (HIDDEN,),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in inside.items()}
    if head:
        shapes["lm_head.weight"] = (WORDS, HIDDEN)
    return random_tensors(0, dtype, shapes)


@pytest.fixture
def merging(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`merging(tensors, config)` writes two models of these tensors, and gives the config of their merge."""

    def write(
        tensors: Mapping[str, torch.Tensor] | None = None, config: Mapping[str, Any] = CONFIG, **options: Any
    ) -> dict[str, Any]:
        found = llama() if tensors is None else tensors
        paths = [write_model(tmp_path / name, found, config) for name in "ab"]
        return {
            "strategy": "weighted",
            "models": [{"path": str(path)} for path in paths],
            "output_path": str(tmp_path / "merged"),
            "options": options,
        }

    return write
