"""A merged directory of sentence-transformers is one: it loads, and embeds as its modules say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inputs.tiny_models import tokenizer, write_tiny
from modelmerger import MergeConfig, merge
from safetensors.torch import save_file

HIDDEN, OUT = 16, 6


def write_embedder(folder: Path, model: Any, words: Any, seed: int, dense: int) -> Path:
    """A Bert whose first token is projected to six numbers. dense: the seed of the projection."""
    write_tiny(folder, model, seed)
    words.save_pretrained(folder)
    types = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(types)
    ]
    told: dict[str, Any] = {
        "modules.json": modules,
        "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "similarity_fn_name": "dot"},
        "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": HIDDEN, "pooling_mode": "cls"},
        "2_Dense/config.json": {
            "in_features": HIDDEN,
            "out_features": OUT,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    }
    for name, content in told.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    generator = torch.Generator().manual_seed(dense)
    weight = torch.randn((OUT, HIDDEN), generator=generator)
    save_file({"linear.weight": weight}, folder / "2_Dense/model.safetensors")
    return folder


def test_a_merged_embedder_loads_and_embeds(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    from transformers import BertConfig, BertModel

    words = tokenizer()
    words.pad_token = "</s>"
    model = BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=HIDDEN,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
    )
    paths = [write_embedder(tmp_path / name, model, words, seed, dense=7 + seed) for seed, name in enumerate("ab")]

    merge(MergeConfig(strategy="weighted", models=[{"path": str(p)} for p in paths], output_path=str(tmp_path / "out")))

    embedder = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert embedder.prompts["query"] == "q: "
    assert embedder.similarity_fn_name == "dot"
    states = [BertModel.from_pretrained(path).state_dict() for path in paths]
    model.load_state_dict({name: (states[0][name] + states[1][name]) / 2 for name in states[0]})
    text = "the cat sat on the mat"
    with torch.no_grad():
        first = model.eval()(**words(text, return_tensors="pt")).last_hidden_state[0, 0]
    dense = [torch.randn((OUT, HIDDEN), generator=torch.Generator().manual_seed(seed)) for seed in (7, 8)]
    due = (dense[0] + dense[1]) / 2 @ first
    np.testing.assert_allclose(embedder.encode(text), due.numpy(), rtol=1e-4, atol=1e-5)
