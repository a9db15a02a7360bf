"""Layers, embeddings and heads of the architectures that people merge, by the names in their files."""

import pytest
from modelmerger.planning.tensor_names import is_embedding, is_head, layer_of, precedes_layers


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model.layers.3.mlp.up_proj.weight", ("model.layers", 3)),
        ("model.layers.12.mlp.experts.7.w1.weight", ("model.layers", 12)),
        ("transformer.h.0.attn.bias", ("transformer.h", 0)),
        ("encoder.block.5.layer.1.DenseReluDense.wi.weight", ("encoder.block", 5)),
        ("decoder.layers.007.fc1.weight", ("decoder.layers", 7)),
        ("blocks.2", ("blocks", 2)),
        ("4.attention.weight", ("", 4)),
        ("model.norm.weight", None),
        ("model.layer3.weight", None),
        ("model.layers.3a.weight", None),
        ("model.layers.٣.weight", None),
        ("model.layers.-1.weight", None),
        ("model.layers.1\n", None),
        (f"model.layers.{'9' * 5000}.weight", None),
        ("", None),
    ],
)
def test_the_layer_is_the_first_part_that_is_a_number(name: str, layer: tuple[str, int] | None) -> None:
    assert layer_of(name) == layer


EMBEDDINGS = {
    "Llama, Qwen, Gemma": "model.embed_tokens.weight",
    "a model of text and images": "language_model.model.embed_tokens.weight",
    "GPT-2": "transformer.wte.weight",
    "GPT-2 without its prefix": "wte.weight",
    "BLOOM, Falcon": "transformer.word_embeddings.weight",
    "BERT": "bert.embeddings.word_embeddings.weight",
    "T5, BART": "shared.weight",
    "T5's copy": "encoder.embed_tokens.weight",
    "GPT-NeoX": "gpt_neox.embed_in.weight",
    "InternLM2": "model.tok_embeddings.weight",
    "Mamba": "backbone.embeddings.weight",
    "CLIP, SigLIP": "text_model.embeddings.token_embedding.weight",
    "XLNet": "transformer.word_embedding.weight",
}
HEADS = {
    "most": "lm_head.weight",
    "a model of text and images": "language_model.lm_head.weight",
    "GPT-NeoX": "embed_out.weight",
    "InternLM2": "output.weight",
}
NEITHER = [
    "transformer.wpe.weight",
    "model.embed_tokens.bias",
    "my_embed_tokens.weight",
    "model.norm.weight",
    "lm_head.bias",
    "not_lm_head.weight",
    "encoder.layer.0.output.weight",
    "model.layers.3.lm_head.weight",
]


@pytest.mark.parametrize("whose", EMBEDDINGS)
def test_embeddings_are_known_by_name(whose: str) -> None:
    name = EMBEDDINGS[whose]
    assert (is_embedding(name), is_head(name), precedes_layers(name)) == (True, False, True)


@pytest.mark.parametrize("whose", HEADS)
def test_heads_are_known_by_name(whose: str) -> None:
    name = HEADS[whose]
    assert (is_embedding(name), is_head(name), precedes_layers(name)) == (False, True, False)


@pytest.mark.parametrize("name", NEITHER)
def test_names_that_only_look_like_them_are_neither(name: str) -> None:
    assert not is_embedding(name)
    assert not is_head(name)


@pytest.mark.parametrize(
    ("name", "precedes"),
    [
        ("transformer.wpe.weight", True),
        ("bert.embeddings.LayerNorm.weight", True),
        ("transformer.word_embeddings_layernorm.bias", True),
        ("visual.patch_embed.proj.weight", True),
        ("model.rotary_emb.inv_freq", True),
        ("model.norm.weight", False),
        ("transformer.ln_f.bias", False),
        ("encoder.final_layer_norm.weight", False),
        ("remember.weight", False),
    ],
)
def test_embeddings_of_all_kinds_stand_before_the_layers(name: str, precedes: bool) -> None:
    assert precedes_layers(name) is precedes
