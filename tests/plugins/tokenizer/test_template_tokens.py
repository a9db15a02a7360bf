"""A chat template whose special tokens the merged vocabulary lacks."""

from pathlib import Path
from typing import Any

import pytest
from modelmerger import MergeConfig, ModelMerger

from tests.plugins.tokenizer.rows.test_rows import BASE, MORE, config_of
from tests.plugins.tokenizer.rows.vocabularies import write

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|><|none|>[INST]</s>{% endfor %}"
CHAT = MORE | {"<|im_start|>": 16, "<|im_end|>": 17}


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({}, True),  # it is lent, since the source has none
        ({"chat_template_from": "b"}, True),
        ({"chat_template": TEMPLATE}, True),
        ({"tokenizer_source": "b"}, False),
        ({"chat_template": "<s>{{ messages[0].content }}"}, False),
        ({"preserve_tokenizer": False}, False),
    ],
)
def test_tokens_that_would_be_cut_are_named_with_the_way(tmp_path: Path, options: dict[str, Any], warned: bool) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, CHAT, 18)
    (tmp_path / "b/chat_template.jinja").write_text(TEMPLATE)

    notes = ModelMerger(MergeConfig(**config_of(tmp_path, ["a", "b"], **options))).check_compatibility()

    said = [note for note in notes if "chat template writes" in note.message]
    assert [note.message for note in said] == [
        "the chat template writes <|im_start|>, <|im_end|>, which the merged vocabulary lacks, so that prompts are not "
        "what 'b' was trained on. Set options.tokenizer_source to b, or to union."
    ] * warned
    assert all(note.severity == "warning" for note in said)
