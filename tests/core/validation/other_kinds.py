"""Tiny transformers models that do not predict the next token: an encoder, and an encoder with a decoder."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from inputs.tiny_models import tokenizer, write_tiny


def make(folder: Path, model: Any, words: Any) -> SimpleNamespace:
    """`a`, and `b` close to it, each with the tokenizer `words`."""
    paths = {"a": write_tiny(folder / "a", model, 1)}
    near = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    paths["b"] = write_tiny(folder / "b", model, 2, near)
    for path in paths.values():
        words.save_pretrained(path)
    return SimpleNamespace(words=words, **paths)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two BERTs for masked language modelling."""
    from transformers import BertConfig, BertForMaskedLM

    words = tokenizer()
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    return make(tmp_path_factory.mktemp("encoder"), BertForMaskedLM(config), words)


@pytest.fixture(scope="session")
def encoder_decoder(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two T5s."""
    from transformers import T5Config, T5ForConditionalGeneration

    words = tokenizer()
    config = T5Config(
        vocab_size=len(words),
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=words.eos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.eos_token_id,
    )
    torch.manual_seed(0)
    return make(tmp_path_factory.mktemp("encoder_decoder"), T5ForConditionalGeneration(config), words)
