"""Ids in configs, as the merged vocabulary has them."""

from typing import Any

import pytest
from modelmerger_plugins.tokenizer.rows.configs import with_ids

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
        ("forced_bos_token_id", 2, 5),
        ("max_length", 3, 3),
        ("suppress_tokens", None, None),
        ("bad_words_ids", "none", "none"),
    ],
)
def test_whatever_holds_ids_is_moved_with_the_rows(key: str, value: Any, due: Any) -> None:
    assert with_ids({key: value}, {}, ROWS) == {key: due}
    assert with_ids({"text_config": {key: value}}, {}, ROWS) == {"text_config": {key: due}}
