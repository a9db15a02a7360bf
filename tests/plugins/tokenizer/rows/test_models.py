"""Which files say what a model's tokens are."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model
from modelmerger import (
    Donor,
    InputError,
    MergeConfig,
    ModelCompatibilityError,
    ModelMerger,
    TensorInfo,
    merge,
)
from modelmerger_plugins.tokenizer.rows.matrices import row_count
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
@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.json"])
def test_files_that_disagree_about_an_id_are_an_error(
    tmp_path: Path, file: str, name: str, content: str, words: str | None
) -> None:
    write(tmp_path / "a", 1, MORE, 16)
    write(tmp_path / "b", 2, None, 12)
    (tmp_path / "b" / file).write_text(fast(BASE) if file == "tokenizer.json" else json.dumps(BASE))
    (tmp_path / "b" / name).write_text(content)
    config = MergeConfig(**config_of(tmp_path, ["a", "b"]))

    if words is None:
        ModelMerger(config).check_compatibility()
        return
    words = words.replace(r"tokenizer\.json", file.replace(".", r"\."))
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


FLAWS = [
    ({}, "it holds no token"),
    ({"a": -1}, "it gives 'a' the row -1"),
    ({"a": 1.0}, "it gives 'a' the row 1.0"),
    ({"a": True}, "it gives 'a' the row True"),
    ({"a": "1"}, "it gives 'a' the row '1'"),
    ({"a": None}, "it gives 'a' the row None"),
    (5, "it is of another form"),
    ("[", "it is not sound JSON: "),
]


def damaged(vocabulary: Any) -> str:
    return vocabulary if isinstance(vocabulary, str) else json.dumps({"model": {"type": "BPE", "vocab": vocabulary}})


@pytest.mark.parametrize(("vocabulary", "words"), FLAWS)
def test_what_is_wrong_with_a_damaged_tokenizer_is_said(tmp_path: Path, vocabulary: Any, words: str) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, None, 16)
    (tmp_path / "b/tokenizer.json").write_text(damaged(vocabulary))

    with pytest.raises(ModelCompatibilityError) as caught:
        merge(MergeConfig(**config_of(tmp_path, ["a", "b"])))
    (problem,) = caught.value.problems
    begin = f"has 16 rows, where others have 12, and a tokenizer.json that cannot be used ({words}"
    assert problem.message.startswith(begin)
    assert problem.message.endswith("). Put the tokenizer there that the model was saved with.")
    assert len(str(problem)) <= 300


def test_a_damaged_one_of_as_many_rows_is_taken_to_say_the_same(tmp_path: Path) -> None:
    for name, tokens in (("a", BASE), ("b", MOVED), ("c", None)):
        write(tmp_path / name, 1, tokens, 12)
    (tmp_path / "c/tokenizer.json").write_text(damaged({"a": -1}))
    config = config_of(tmp_path, ["a", "b"])
    config["models"].append({"path": str(tmp_path / "c"), "weight": 1.0})

    notes = ModelMerger(MergeConfig(**config)).check_compatibility()

    assert (
        "has a tokenizer.json that cannot be used (it gives 'a' the row -1); its 12 rows are taken to be those of 'a'. "
        "Put the tokenizer there that the model was saved with if they are others."
    ) in [note.message for note in notes]


@pytest.mark.parametrize("row", [1 << 21, 1 << 63, 10**40], ids=["large", "64 bits", "huge"])
def test_rows_that_no_model_has_are_refused(tmp_path: Path, row: int) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, BASE | {"x": row}, 16)

    with pytest.raises(
        InputError, match=r"has tokens up to .* \(x\), .* has 16 rows\. .* the file is damaged"
    ) as caught:
        merge(MergeConfig(**config_of(tmp_path, ["a", "b"])))
    assert all(len(str(problem)) <= 300 for problem in caught.value.problems)


def test_what_a_translator_writes_may_be_another_vocabulary(tmp_path: Path) -> None:
    for name, tokens in (("a", BASE), ("b", MOVED)):
        write(tmp_path / name, 1, None, 12)
        (tmp_path / name / "vocab.json").write_text(json.dumps(tokens))
        (tmp_path / name / "target_vocab.json").write_text(json.dumps(BASE))

    with pytest.raises(
        ModelCompatibilityError, match=r"writes another .vocab.json, target_vocab.json., and rows of two"
    ):
        merge(MergeConfig(**config_of(tmp_path, ["a", "b"])))


@pytest.mark.parametrize("name", ["model.layers.9.embed_tokens.weight", "model.layers.9.shared_head.head.weight"])
def test_layers_that_predict_further_tokens_have_rows_too(tmp_path: Path, name: str) -> None:
    for seed, (model, tokens) in enumerate((("a", BASE), ("b", MOVED))):
        shapes = {EMBEDDING: (12, COLUMNS), name: (12, 4), "model.layers.0.mlp.weight": (5, COLUMNS)}
        told = {"model_type": "llama", "hidden_size": COLUMNS, "vocab_size": 12}
        write_model(tmp_path / model, random_tensors(seed, torch.float32, shapes), told)
        (tmp_path / model / "tokenizer.json").write_text(fast(tokens))

    found = merged(config_of(tmp_path, ["a", "b"]))

    ours, theirs = tensors_of(tmp_path / "a")[name], tensors_of(tmp_path / "b")[name]
    torch.testing.assert_close(found[name], 0.6 * ours + 0.4 * theirs.flip(0))


@pytest.mark.parametrize("name", ["model.decoder.embed_tokens.weight", "model.embed_tokens_per_layer.weight"])
def test_a_further_embedding_with_other_rows_is_a_warning(tmp_path: Path, name: str) -> None:
    for seed, (model, tokens) in enumerate((("a", BASE), ("b", MOVED))):
        shapes = {EMBEDDING: (12, COLUMNS), name: (10, COLUMNS), "model.layers.0.mlp.weight": (5, COLUMNS)}
        told = {"model_type": "llama", "hidden_size": COLUMNS, "vocab_size": 12}
        write_model(tmp_path / model, random_tensors(seed, torch.float32, shapes), told)
        (tmp_path / model / "tokenizer.json").write_text(fast(tokens))

    notes = ModelMerger(MergeConfig(**config_of(tmp_path, ["a", "b"]))).check_compatibility()

    (message,) = [note.message for note in notes if note.tensor == name]
    assert message.startswith("has 10 rows, and the embedding 12, so that its rows are not matched by token.")


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
        "decoder.weight",
        "lm_loss.weight",
        "pred_layer.proj.weight",
        "output_projection.weight",
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


@pytest.mark.parametrize("name", ["decoder.bias", "lm_loss.bias", "pred_layer.proj.bias", "mlm_score.bias"])
def test_so_have_biases(tmp_path: Path, name: str) -> None:
    for seed, (model, tokens) in enumerate((("a", BASE), ("b", MOVED))):
        shapes = {EMBEDDING: (12, COLUMNS), name: (12,), "model.layers.0.mlp.weight": (5, COLUMNS)}
        told = {"model_type": "llama", "hidden_size": COLUMNS, "vocab_size": 12}
        write_model(tmp_path / model, random_tensors(seed, torch.float32, shapes), told)
        (tmp_path / model / "tokenizer.json").write_text(fast(tokens))

    found = merged(config_of(tmp_path, ["a", "b"]))

    ours, theirs = tensors_of(tmp_path / "a")[name], tensors_of(tmp_path / "b")[name]
    torch.testing.assert_close(found[name], 0.6 * ours + 0.4 * theirs.flip(0))


@pytest.mark.parametrize(
    ("shapes", "config", "due"),
    [
        ({"transformer.word_embedding.weight": 12}, {}, 12),
        ({"a.embed_tokens.weight": 8, "b.embed_tokens.weight": 12}, {"b": {"vocab_size": 12}, "a": {"vocab_size": 8}}, 12),
        ({"a.embed_tokens.weight": 8, "b.embed_tokens.weight": 12}, {}, 8),
        ({"depth_decoder.embed_tokens.weight": 8, "embed_text_tokens.weight": 12}, {"vocab_size": 8, "text_vocab_size": 12}, 12),
        ({"depth_decoder.embed_tokens.weight": 8}, {"vocab_size": 8}, 8),
        ({"lm_head.weight": 8}, {"vocab_size": 8}, None),
    ],
)  # fmt: skip
def test_which_embedding_has_the_rows(shapes: dict[str, int], config: dict[str, Any], due: int | None) -> None:
    tensors = {name: TensorInfo("F32", (rows, 4)) for name, rows in shapes.items()}
    model: Any = SimpleNamespace(tensors=tensors, donor=Donor(config=config))

    assert row_count(model) == due


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
