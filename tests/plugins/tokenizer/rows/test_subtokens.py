"""Into which rows of a model the text of a token is cut that it lacks."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import InputError
from modelmerger_plugins.tokenizer.rows.models import OfModel
from modelmerger_plugins.tokenizer.rows.subtokens import pieces_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

ALPHABET = {letter: row for row, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
IN_BYTES = {**ALPHABET, "ØŃ": 256}


def of_bytes() -> Tokenizer:
    made = Tokenizer(models.BPE(IN_BYTES, [("Ø", "Ń")]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return made


def of_scores() -> Tokenizer:
    made = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0), ("▁", -3.0)], 0))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return made


def of_words() -> Tokenizer:
    return Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##a": 2, "##b": 3, "#": 4, "###": 5}, unk_token="[UNK]"))


def of_ends() -> Tokenizer:
    return Tokenizer(models.BPE({"a": 0, "b</w>": 1, "b": 2}, [], end_of_word_suffix="</w>", unk_token=None))


def model_in(folder: Path) -> OfModel:
    """A model of a thousand rows, with the tokenizer of a folder."""
    checkpoint: Any = SimpleNamespace(place="m", name="m")
    return OfModel(checkpoint, 1_000, {}, folder, "tokenizer.json")


@pytest.mark.parametrize(
    ("made", "token", "due"),
    [
        (of_bytes, "ØŃØ", [256, ALPHABET["Ø"]]),  # in letters for bytes
        (of_bytes, "<ح>", [ALPHABET["<"], 256, ALPHABET[">"]]),  # an added token: the text itself
        (of_bytes, "a b", [ALPHABET["a"], ALPHABET["Ġ"], ALPHABET["b"]]),
        (of_scores, "▁ab", [3, 1, 2]),
        (of_scores, "aج", []),  # the row for what is unknown is none of its text
        (of_words, "##ab", [1, 3]),  # the mark is no part of its text
        (of_words, "ab", [1, 3]),
        (of_words, "جa", []),
        (of_ends, "ab</w>", [0, 1]),
    ],
)
def test_a_token_is_cut_as_its_text_is(tmp_path: Path, made: Any, token: str, due: list[int]) -> None:
    (tmp_path / "tokenizer.json").write_text(made().to_str())
    model = model_in(tmp_path)

    assert list(pieces_of(model, in_bytes=False)(token)) == due


def test_merges_are_never_dropped(tmp_path: Path) -> None:
    value = json.loads(of_bytes().to_str())
    value["model"]["dropout"] = 0.999
    (tmp_path / "tokenizer.json").write_text(json.dumps(value))
    model = model_in(tmp_path)

    assert [list(pieces_of(model, in_bytes=False)("ØŃ")) for _ in range(20)] == [[256]] * 20


@pytest.mark.parametrize("change", [{"continuing_subword_prefix": "1"}, {"merges": [["ا", "b"]]}, {"merges": [5]}])
def test_a_file_on_which_the_library_would_end_the_process_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    value = json.loads(of_bytes().to_str())
    value["model"] |= change
    (tmp_path / "tokenizer.json").write_text(json.dumps(value))
    model = model_in(tmp_path)

    with pytest.raises(InputError, match=r"^m: has a tokenizer\.json that tokenizers cannot read"):
        pieces_of(model, in_bytes=False)("ab")


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    value = json.loads(of_words().to_str())
    (tmp_path / "tokenizer.json").write_text("\ufeff" + json.dumps(value))
    model = model_in(tmp_path)

    assert list(pieces_of(model, in_bytes=False)("ab")) == [1, 3]
