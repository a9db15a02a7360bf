"""Whole merges with the union of two tokenizers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model
from modelmerger import MergeConfig, ModelCompatibilityError, ModelMerger, merge
from modelmerger_plugins.tokenizer.union.spelling import letters_of_bytes
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tests.plugins.tokenizer.rows.vocabularies import EMBEDDING, HEAD
from tests.plugins.tokenizer.union.trained import ARABIC, LATIN, by_bytes, by_characters, lines, words

TEXTS = [lines(words(11, letters, 500)) for letters in (LATIN, ARABIC)]
FIRST, SECOND = by_bytes(TEXTS[0], 400, ("<|endoftext|>",)), by_bytes(TEXTS[1], 450, ("<|im_end|>",))
OF_CHARACTERS = by_characters(TEXTS[1], 450)


def write(
    path: Path, seed: int, tokenizer: dict[str, Any], rows: int, kind: str = "Qwen2Tokenizer", **config: Any
) -> None:
    shapes = {EMBEDDING: (rows, 8), HEAD: (rows, 8), "model.layers.0.mlp.weight": (4, 8)}
    told = {"model_type": "qwen2", "vocab_size": rows, "hidden_size": 8, "tie_word_embeddings": False, **config}
    write_model(path, random_tensors(seed, torch.float32, shapes), told)
    (path / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    (path / "vocab.json").write_text("{}")
    (path / "merges.txt").write_text("")


def config_of(folder: Path, **options: Any) -> dict[str, Any]:
    return {
        "strategy": "weighted",
        "models": [{"path": str(folder / "a"), "weight": 0.5}, {"path": str(folder / "b"), "weight": 0.5}],
        "output_path": str(folder / "merged"),
        "options": {"check_loading": False, "tokenizer_source": "union", **options},
    }


@pytest.mark.parametrize("second", [SECOND, OF_CHARACTERS], ids=["bytes", "characters"])
def test_a_union_is_written_with_a_row_for_each_token(tmp_path: Path, second: dict[str, Any]) -> None:
    write(tmp_path / "a", 1, FIRST, 408)
    write(tmp_path / "b", 2, second, 456)

    report = merge(MergeConfig(**config_of(tmp_path)))

    made = AutoTokenizer.from_pretrained(tmp_path / "merged")
    written = json.loads((tmp_path / "merged/tokenizer.json").read_text())
    size = len(made.get_vocab())
    assert size == len(written["model"]["vocab"]) > 500
    ours, theirs, found = (load_file(tmp_path / name / "model.safetensors")[EMBEDDING] for name in ("a", "b", "merged"))
    assert len(found) == -(-size // 8) * 8
    assert json.loads((tmp_path / "merged/config.json").read_text())["vocab_size"] == len(found)
    own = second["model"]["vocab"] | {token["content"]: token["id"] for token in second["added_tokens"]}
    both = alone = 0
    for token, row in made.get_vocab().items():
        spelt = made.convert_tokens_to_string([token]).replace(" ", "▁") if second is OF_CHARACTERS else token
        first_row = ours[row] if row < 401 else None
        other_row = theirs[own[spelt]] if spelt in own and "\ufffd" not in spelt else None
        if first_row is not None and other_row is not None:
            torch.testing.assert_close(found[row], (first_row + other_row) / 2)
            both += 1
        elif first_row is None and other_row is not None:
            torch.testing.assert_close(found[row], other_row)
            alone += 1
    assert both > 0
    assert alone > 100
    for text in (*TEXTS[0][:20], *TEXTS[1][:20]):
        assert made.decode(made(text)["input_ids"]) == text
    assert not {"vocab.json", "merges.txt"} & {path.name for path in (tmp_path / "merged").iterdir()}
    said = "\n".join(note.message for note in report.notes)
    assert "of 'b', which leads Arabic (" in said
    assert [
        note.message for note in report.notes if note.severity == "warning" and "unrelated" not in note.message
    ] == []
    made.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert [again(text)["input_ids"] for text in TEXTS[1]] == [made(text)["input_ids"] for text in TEXTS[1]]


def test_added_tokens_of_the_second_end_answers_too(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, FIRST, 408, eos_token_id=400)
    write(tmp_path / "b", 2, SECOND, 456, eos_token_id=450)
    (tmp_path / "a/generation_config.json").write_text('{"eos_token_id": 400}')
    listed = {"added_tokens_decoder": {"400": {"content": "<|endoftext|>"}}, "tokenizer_class": "Qwen2Tokenizer"}
    (tmp_path / "a/tokenizer_config.json").write_text(json.dumps(listed))

    merge(MergeConfig(**config_of(tmp_path)))

    tokens = json.loads((tmp_path / "merged/tokenizer.json").read_text())["model"]["vocab"]
    end = tokens["<|im_end|>"]
    assert json.loads((tmp_path / "merged/generation_config.json").read_text())["eos_token_id"] == [400, end]
    decoder = json.loads((tmp_path / "merged/tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert (decoder["400"]["content"], decoder[str(end)]["content"]) == ("<|endoftext|>", "<|im_end|>")


def test_a_token_that_only_the_config_lists_keeps_its_row(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, FIRST, 408)
    write(tmp_path / "b", 2, SECOND, 456)
    entry = {"content": "<|pad|>", "special": False, "lstrip": True}
    listed = {"added_tokens_decoder": {"401": entry}, "tokenizer_class": "Qwen2Tokenizer"}
    (tmp_path / "a/tokenizer_config.json").write_text(json.dumps(listed))

    merge(MergeConfig(**config_of(tmp_path)))

    made = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert made.convert_tokens_to_ids(["<|endoftext|>", "<|pad|>"]) == [400, 401]
    added = json.loads((tmp_path / "merged/tokenizer.json").read_text())["added_tokens"]
    (flags,) = [{key: token[key] for key in token if token[key] is True} for token in added if token["id"] == 401]
    assert flags == {"lstrip": True}
    found, ours = (load_file(tmp_path / name / "model.safetensors")[EMBEDDING] for name in ("merged", "a"))
    torch.testing.assert_close(found[401], ours[401])


@pytest.mark.parametrize("renaming", ["a", "b"])
def test_a_reserved_token_that_one_model_has_renamed_is_one_row(tmp_path: Path, renaming: str) -> None:
    reserved = "<|reserved_special_token_0|>"
    texts = [*TEXTS[0], *TEXTS[1]]
    names = {name: "<|im_start|>" if name == renaming else reserved for name in "ab"}
    first, second = (by_bytes(texts, 400, (names[name],)) for name in "ab")
    pair = ["س", "ت"]  # so that they differ in more than the name
    spelt = ["".join(map(letters_of_bytes().__getitem__, letter.encode())) for letter in pair]
    second["model"]["vocab"]["".join(spelt)] = 401
    second["model"]["merges"].append(spelt)
    write(tmp_path / "a", 1, first, 408)
    write(tmp_path / "b", 2, second, 408)

    merge(MergeConfig(**config_of(tmp_path)))

    written = json.loads((tmp_path / "merged/tokenizer.json").read_text())
    assert [(token["id"], token["content"]) for token in written["added_tokens"]] == [(400, "<|im_start|>")]
    assert reserved not in written["model"]["vocab"]
    found, own = (load_file(tmp_path / name / "model.safetensors")[EMBEDDING] for name in ("merged", renaming))
    torch.testing.assert_close(found[400], own[400])


def test_without_union_such_vocabularies_are_unrelated(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, FIRST, 408)
    write(tmp_path / "b", 2, OF_CHARACTERS, 456)

    with pytest.raises(
        ModelCompatibilityError, match=r"unrelated vocabularies\..*or set options\.tokenizer_source: union"
    ):
        merge(MergeConfig(**config_of(tmp_path, tokenizer_source="base")))


def test_a_model_without_tokenizer_json_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, FIRST, 408)
    write(tmp_path / "b", 2, SECOND, 456)
    (tmp_path / "b/tokenizer.json").unlink()
    (tmp_path / "b/vocab.json").write_text(json.dumps(SECOND["model"]["vocab"]))

    with pytest.raises(Exception, match="Load the tokenizer once with transformers and save it"):
        ModelMerger(MergeConfig(**config_of(tmp_path))).plan()


def test_transformers_cuts_as_the_file_says_though_it_makes_the_class_anew(tmp_path: Path) -> None:
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    steps = {"type": "Sequence", "pretokenizers": [split, level]}
    qwen = {**FIRST, "normalizer": {"type": "NFC"}, "pre_tokenizer": steps}
    llama = by_characters(TEXTS[0], 500, fallback=True)
    for kind, first, second in (("Qwen2Tokenizer", qwen, SECOND), ("LlamaTokenizer", llama, OF_CHARACTERS)):
        folder = tmp_path / kind
        folder.mkdir()
        family = kind.removesuffix("Tokenizer").lower()
        write(folder / "a", 1, first, 512, kind, model_type=family, num_attention_heads=2)
        write(folder / "b", 2, second, 456, kind, model_type=family, num_attention_heads=2)

        merge(MergeConfig(**config_of(folder)))

        made = AutoTokenizer.from_pretrained(folder / "merged")
        assert type(made).__name__ == kind
        plain = Tokenizer.from_file(str(folder / "merged/tokenizer.json"))
        for text in (*TEXTS[0], *TEXTS[1], "It's 42 — سلام! \n  x"):
            found = made(text, add_special_tokens=False)["input_ids"]
            assert found == plain.encode(text, add_special_tokens=False).ids, (kind, text)
