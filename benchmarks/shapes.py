"""The shapes of real checkpoints: which tensors a model of a family has, and their sizes."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

BYTES_PER_ELEMENT = 2  # bfloat16
LAYOUT = 1  # raised when what synthetic.py writes changes, so that cached models of another kind are not used


@dataclass(frozen=True)
class Shape:
    """A Qwen2.5 model."""

    name: str
    hidden: int
    layers: int
    heads: int
    intermediate: int
    key_value_heads: int = 2
    vocabulary: int = 151_936
    tied: bool = True

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes in the order in which they are laid out in the files."""
        keys = self.hidden // self.heads * self.key_value_heads
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            yield f"{prefix}.input_layernorm.weight", (self.hidden,)
            yield f"{prefix}.mlp.down_proj.weight", (self.hidden, self.intermediate)
            yield f"{prefix}.mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield f"{prefix}.mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield f"{prefix}.post_attention_layernorm.weight", (self.hidden,)
            for part, rows in (("q", self.hidden), ("k", keys), ("v", keys)):
                yield f"{prefix}.self_attn.{part}_proj.bias", (rows,)
                yield f"{prefix}.self_attn.{part}_proj.weight", (rows, self.hidden)
            yield f"{prefix}.self_attn.o_proj.weight", (self.hidden, self.hidden)
        yield "model.norm.weight", (self.hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocabulary, self.hidden)

    @property
    def bytes(self) -> int:
        """Size of the weights of one model."""
        return sum(prod(shape) for _, shape in self.tensors()) * BYTES_PER_ELEMENT

    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        return {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "bfloat16",
        }


TRIAL = "trial"
"""A shape of no real model, to try the benchmark itself; it takes part only where it is named."""
SHAPES = {
    shape.name: shape
    for shape in (
        Shape(TRIAL, hidden=256, layers=4, heads=4, intermediate=1_408, vocabulary=32_000),
        Shape("0.5B", hidden=896, layers=24, heads=14, intermediate=4_864),
        Shape("1.5B", hidden=1_536, layers=28, heads=12, intermediate=8_960),
        Shape("3B", hidden=2_048, layers=36, heads=16, intermediate=11_008),
        Shape(
            "7B",
            hidden=3_584,
            layers=28,
            heads=28,
            intermediate=18_944,
            key_value_heads=4,
            vocabulary=152_064,
            tied=False,
        ),
    )
}
