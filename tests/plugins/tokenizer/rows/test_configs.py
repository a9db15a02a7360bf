"""Ids in configs, as the merged vocabulary has them."""

from typing import Any

import pytest
from modelmerger_plugins.tokenizer.rows.configs import with_ids, with_lacking, with_vocabulary_size

ROWS = {1: 7, 2: 5, 3: 3, 50: 60}
"""Row of the donor → row of the merged model; it lacks the token of row 4."""


@pytest.mark.parametrize(
    ("key", "value", "due"),
    [
        ("suppress_tokens", [1, 4, 2], [7, 5]),
        ("begin_suppress_tokens", [-1, 3], [-1, 3]),
        ("bad_words_ids", [[1, 2], [1, 4], [3]], [[7, 5], [3]]),
        ("force_words_ids", [[2]], [[5]]),
        ("lang_to_id", {"<|ar|>": 50, "<|en|>": 4}, {"<|ar|>": 60}),
        ("forced_decoder_ids", [[1, 50], [2, 4], [3, None]], [[1, 60]]),
        ("sequence_bias", [[[1, 2], -5.0], [[1, 4], 2.0], [[3], 0.5]], [[[7, 5], -5.0], [[3], 0.5]]),
        ("forced_bos_token_id", 2, 5),
        ("image_token_id", 2, 5),
        ("codebook_pad_token_id", 2, 2),
        ("max_length", 3, 3),
        ("suppress_tokens", None, None),
        ("bad_words_ids", "none", "none"),
    ],
)
def test_whatever_holds_ids_is_moved_with_the_rows(key: str, value: Any, due: Any) -> None:
    assert with_ids({key: value}, {}, ROWS) == {key: due}
    assert with_ids({"text_config": {key: value}}, {}, ROWS) == {"text_config": {key: due}}


@pytest.mark.parametrize(
    ("key", "due"),
    [
        ("vocab_size", 64),
        ("text_vocab_size", 64),
        ("padded_vocab_size", 64),
        ("decoder_vocab_size", 64),
        ("vocab_size_per_layer_input", 64),
        ("audio_vocab_size", 60),
        ("codebook_vocab_size", 60),
        ("hidden_size", 60),
    ],
)
def test_whatever_says_the_number_of_rows_says_the_new_one(key: str, due: int) -> None:
    config = {key: 60, "text_config": {key: 60}, "audio_config": {key: 60}, "decoder": {"vocab_size": 61}}

    found = with_vocabulary_size(config, 60, 64)

    assert found == {key: due, "text_config": {key: due}, "audio_config": {key: 60}, "decoder": {"vocab_size": 61}}


def test_ids_that_only_the_source_has_are_taken() -> None:
    source = {"bos_token_id": 8, "pad_token_id": 9, "image_token_id": 3}

    assert with_ids({"pad_token_id": None, "sep_token_id": None}, source, ROWS) == {
        "pad_token_id": 9,
        "sep_token_id": None,
    }
    keys = ("bos_token_id", "pad_token_id", "eos_token_id")
    assert with_lacking({"pad_token_id": 9}, source, keys) == {"pad_token_id": 9, "bos_token_id": 8}
    assert with_lacking({"text_config": {"eos_token_id": 2}}, source, keys) == {
        "text_config": {"eos_token_id": 2, "bos_token_id": 8, "pad_token_id": 9}
    }
