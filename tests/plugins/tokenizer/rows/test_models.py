"""Which files say what a model's tokens are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model
from modelmerger import InputError, MergeConfig, ModelCompatibilityError, ModelMerger, merge
from safetensors.torch import save_file

from tests.plugins.tokenizer.rows.test_rows import BASE, MORE, MOVED, config_of, merged
from tests.plugins.tokenizer.rows.vocabularies import COLUMNS, EMBEDDING, HEAD, fast, tensors_of, write

PIECES = b"\x0a\x03\x0a\x01a"
"""A sentencepiece model with one piece."""


def listed(*tokens: tuple[int, str]) -> str:
    return json.dumps({"added_tokens_decoder": {str(row): {"content": token} for row, token in tokens}})


@pytest.mark.parametrize("by", ["tokenizer_config.json", "added_tokens.json"])
@pytest.mark.parametrize("file", ["vocab.json", "tokenizer.json"])
def test_added_tokens_may_stand_in_another_file_alone(tmp_path: Path, file: str, by: str) -> None:
    write(tmp_path / "a", 1, None, 14, dtype=torch.float32)
    (tmp_path / "a" / file).write_text(json.dumps(BASE) if file == "vocab.json" else fast(BASE))
    said = listed((2, "</s>"), (12, "<x>")) if by == "tokenizer_config.json" else '{"<x>": 12}'
    (tmp_path / "a" / by).write_text(said)
    write(tmp_path / "b", 2, MOVED | {"<x>": 12}, 13, dtype=torch.float32)

    found = merged(config_of(tmp_path, ["a", "b"]))

    ours, theirs = tensors_of(tmp_path / "a")[EMBEDDING], tensors_of(tmp_path / "b")[EMBEDDING]
    torch.testing.assert_close(found[EMBEDDING][12], 0.6 * ours[12] + 0.4 * theirs[12])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer_config.json", listed((11, "<x>")), r"token 11 is '<x>', and tokenizer\.json says 'i'"),
        ("tokenizer_config.json", listed((4, "a")), r"'a' is token 4, and tokenizer\.json says 3"),
        ("added_tokens.json", '{"<x>": 11}', r"token 11 is '<x>', and tokenizer\.json says 'i'"),
        ("added_tokens.json", '{"a": 4}', r"'a' is token 4, and tokenizer\.json says 3"),
        ("tokenizer_config.json", listed((11, "<|reserved_special_token_3|>")), None),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}', None),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}, "-1": {"content": "y"}}}', None),
        ("tokenizer_config.json", "[", None),
    ],
)
def test_files_that_disagree_about_an_id_are_an_error(
    tmp_path: Path, name: str, content: str, words: str | None
) -> None:
    write(tmp_path / "a", 1, MORE, 16)
    write(tmp_path / "b", 2, BASE, 12)
    (tmp_path / "b" / name).write_text(content)
    config = MergeConfig(**config_of(tmp_path, ["a", "b"]))

    if words is None:
        ModelMerger(config).check_compatibility()
        return
    with pytest.raises(InputError, match=rf"b/{name}: says that {words}. Which is it\? Save the tokenizer anew"):
        ModelMerger(config).check_compatibility()


def test_a_list_of_tokens_has_one_a_line_whatever_unicode_takes_for_a_line(tmp_path: Path) -> None:
    tokens = ["[PAD]", "\u2028", "a", "\x85", "b", "\x0c", "c"]
    write(tmp_path / "a", 1, None, 7, dtype=torch.float32)
    (tmp_path / "a/vocab.txt").write_bytes("\r\n".join([*tokens, ""]).encode())
    write(tmp_path / "b", 2, {token: row for row, token in enumerate(reversed(tokens))}, 7, dtype=torch.float32)

    found = merged(config_of(tmp_path, ["a", "b"]))

    ours, theirs = tensors_of(tmp_path / "a")[EMBEDDING], tensors_of(tmp_path / "b")[EMBEDDING]
    torch.testing.assert_close(found[EMBEDDING], 0.6 * ours + 0.4 * theirs.flip(0))


@pytest.mark.parametrize("both", [False, True])
def test_a_sentencepiece_model_alone_does_not_say_other_rows(tmp_path: Path, both: bool) -> None:
    write(tmp_path / "a", 1, None if both else BASE, 12)
    write(tmp_path / "b", 2, None, 16)
    for name in "ab" if both else "b":
        (tmp_path / name / "tokenizer.model").write_bytes(PIECES)

    with pytest.raises(
        ModelCompatibilityError, match=r"b: has 16 rows, where others have 12, and only tokenizer\.model,"
    ) as caught:
        merge(MergeConfig(**config_of(tmp_path, ["a", "b"])))
    assert len(caught.value.problems) == 1 + both
    assert all("once with transformers and save it" in problem.message for problem in caught.value.problems)
    assert all(len(str(problem)) <= 300 for problem in caught.value.problems)


def test_what_no_file_says_is_not_measured(tmp_path: Path) -> None:
    for name, tokens, rows in (("base", None, 12), ("a", BASE, 12), ("b", MORE, 16)):
        write(tmp_path / name, 1, tokens, rows)
    (tmp_path / "base/tokenizer.model").write_bytes(PIECES)
    config = config_of(tmp_path, ["a", "b"], "task_arithmetic", "base", scaling_factor=1.0)

    report = merge(MergeConfig(**config))

    assert report.figures == {}
    assert [note.message for note in report.notes if "words are cut" in note.message] == []


def test_of_as_many_rows_it_is_taken_to_say_the_same(tmp_path: Path) -> None:
    for name, tokens, rows in (("base", None, 12), ("a", BASE, 12), ("b", MORE, 16)):
        write(tmp_path / name, 1, tokens, rows)
    (tmp_path / "base/tokenizer.model").write_bytes(PIECES)
    config: dict[str, Any] = config_of(tmp_path, ["a", "b"], "task_arithmetic", "base", scaling_factor=1.0)
    notes = ModelMerger(MergeConfig(**config)).check_compatibility()

    assert (
        "has only tokenizer.model, which does not say which row is which token; its 12 rows are taken to be those of "
        "'a'. Load the tokenizer once with transformers and save it if they are others."
    ) in [note.message for note in notes]


@pytest.mark.parametrize("file", ["vocab.json", "tokenizer.json", None])
def test_without_a_tokenizer_that_cuts_there_are_no_pieces(tmp_path: Path, file: str | None) -> None:
    write(tmp_path / "a", 1, None, 12)
    if file is not None:
        content = json.dumps(BASE) if file == "vocab.json" else json.dumps({"model": {"vocab": BASE}})
        (tmp_path / "a" / file).write_text(content)
    write(tmp_path / "b", 2, MORE, 16)
    write(tmp_path / "c", 3, BASE, 12)
    config = config_of(tmp_path, ["a", "b"], tokenizer_source="b", missing_tokens="mean_subtokens")
    config["models"].append({"path": str(tmp_path / "c"), "weight": 1.0})

    with pytest.raises(
        InputError,
        match=r"a: has (no|a) tokenizer\.json.*, and missing_tokens: mean_subtokens cuts .*once with transformers and save it",
    ):
        merge(MergeConfig(**config))
    config["options"]["tokenizer_source"] = "c"  # all tokens of which the model has
    merge(MergeConfig(**config))


def test_a_head_with_other_rows_than_the_embedding_is_a_warning(tmp_path: Path) -> None:
    for name, tokens in (("a", BASE), ("b", MOVED)):
        write(tmp_path / name, 1, tokens, 12)
        tensors = tensors_of(tmp_path / name)
        save_file(tensors | {HEAD: torch.ones(16, COLUMNS)}, tmp_path / name / "model.safetensors")

    notes = ModelMerger(MergeConfig(**config_of(tmp_path, ["a", "b"]))).check_compatibility()

    said = [(note.tensor, note.message) for note in notes if "not matched by token" in note.message]
    message = "has 16 rows, and the embedding 12, so that its rows are not matched by token. If they are tokens', "
    assert said == [(HEAD, f"{message}give the models one vocabulary first (resize_token_embeddings).")]


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens_per_layer.weight",
        "predictions.decoder.weight",
        "generator_lm_head.weight",
        "proj_out.weight",
    ],
)
def test_rows_of_tokens_have_many_names(tmp_path: Path, name: str) -> None:
    for seed, (model, tokens) in enumerate((("a", BASE), ("b", MOVED))):
        shapes = {EMBEDDING: (12, COLUMNS), name: (12, 4), "model.layers.0.mlp.weight": (5, COLUMNS)}
        told = {"model_type": "llama", "hidden_size": COLUMNS, "vocab_size": 12}
        write_model(tmp_path / model, random_tensors(seed, torch.float32, shapes), told)
        (tmp_path / model / "tokenizer.json").write_text(fast(tokens))

    found = merged(config_of(tmp_path, ["a", "b"]))

    ours, theirs = tensors_of(tmp_path / "a")[name], tensors_of(tmp_path / "b")[name]
    torch.testing.assert_close(found[name], 0.6 * ours + 0.4 * theirs.flip(0))


def test_a_matrix_of_unknown_name_with_as_many_rows_is_a_warning(tmp_path: Path) -> None:
    tokens = {f"t{row}": row for row in range(1_000)}
    for seed, (model, own) in enumerate((("a", tokens), ("b", tokens | {"t0": 1, "t1": 0}))):
        shapes = {EMBEDDING: (1_000, 2), "model.readout.weight": (1_000, 2), "model.wpe.weight": (1_000, 2)}
        told = {"model_type": "llama", "hidden_size": 2, "vocab_size": 1_000}
        write_model(tmp_path / model, random_tensors(seed, torch.float32, shapes), told)
        (tmp_path / model / "tokenizer.json").write_text(fast(own))

    notes = ModelMerger(MergeConfig(**config_of(tmp_path, ["a", "b"]))).check_compatibility()

    said = [(note.tensor, note.severity) for note in notes if "its rows are not matched by token" in note.message]
    assert said == [("model.readout.weight", "warning")]
