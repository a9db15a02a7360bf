"""A merge of models with different vocabularies is, bit for bit, that of models that were extended on disk beforehand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_model
from modelmerger import (
    ConfigError,
    InputError,
    MergeConfig,
    ModelCompatibilityError,
    ModelMerger,
    check_model_compatibility,
    merge,
    verify,
)
from modelmerger.testing import merge_in_memory

from tests.plugins.tokenizer.rows.vocabularies import (
    BIAS,
    COLUMNS,
    EMBEDDING,
    HEAD,
    extended,
    fast,
    listed,
    tensors_of,
    write,
)

BASE = listed("<unk> <s> </s> a b c d e f g h i")
MORE = {**BASE, **{word: 12 + i for i, word in enumerate(["س", "لا", "م", "ال"])}}
MOVED = {token: row for row, token in enumerate(reversed(BASE))}
STRATEGIES = {
    "weighted": ({}, False),
    "sequential": ({}, False),
    "slerp": ({}, False),
    "task_arithmetic": ({"scaling_factor": 0.7}, True),
    "ties": ({}, True),
    "model_stock": ({}, True),
    "karcher": ({}, False),
}


def config_of(
    folder: Path, names: list[str], strategy: str = "weighted", base: str | None = None, **options: Any
) -> Any:
    weights: list[dict[str, Any]] = [{}, {}]
    if strategy in ("weighted", "task_arithmetic", "ties"):
        weights = [{"weight": 0.6}, {"weight": 0.4}]
    config: dict[str, Any] = {
        "strategy": strategy,
        "models": [{"path": str(folder / name), **weight} for name, weight in zip(names, weights, strict=True)],
        "output_path": str(folder / "merged"),
        "options": {"check_loading": False, **options},
    }
    return config | ({"base_model": str(folder / base)} if base else {})


def merged(config: Any) -> dict[str, torch.Tensor]:
    merge(MergeConfig(**config))
    return tensors_of(Path(config["output_path"]))


def assert_same(found: dict[str, torch.Tensor], due: dict[str, torch.Tensor]) -> None:
    assert found.keys() == due.keys()
    for name, tensor in due.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_are_those_of_models_extended_beforehand(
    tmp_path: Path, strategy: str, dtype: torch.dtype, tied: bool
) -> None:
    options, with_base = STRATEGIES[strategy]
    vocabularies = {"a": (MORE, 16), "b": (MOVED, 14)} | ({"base": (BASE, 12)} if with_base else {})
    for seed, (name, (tokens, rows)) in enumerate(vocabularies.items()):
        write(tmp_path / name, seed, tokens, rows, dtype=dtype, tied=tied)
    base = "base" if with_base else None
    config = config_of(tmp_path, ["a", "b"], strategy, base, tokenizer_source="a", **options)

    found = merged(config)

    models = {name: (tensors_of(tmp_path / name), tokens) for name, (tokens, _) in vocabularies.items()}
    made = extended(models, MORE, 16, source="a", base=base)
    for name, tensors in made.items():
        told = json.loads((tmp_path / name / "config.json").read_text())
        write_model(tmp_path / f"extended/{name}", tensors, {**told, "vocab_size": 16})
    del config["options"]["tokenizer_source"]
    folder = tmp_path / "extended"
    due = merged(config_of(folder, ["a", "b"], strategy, base, **options))
    assert found[EMBEDDING].shape == (16, COLUMNS)
    assert_same(found, due)
    assert json.loads((tmp_path / "merged/config.json").read_text())["vocab_size"] == 16
    assert (tmp_path / "merged/tokenizer.json").read_bytes() == (tmp_path / "a/tokenizer.json").read_bytes()
    verify(tmp_path / "merged")


def test_equal_vocabularies_are_seen_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, None, 12)
    (tmp_path / "b/tokenizer.json").write_text(json.dumps(json.loads(fast(BASE)), indent=1))  # other bytes, same tokens
    config = MergeConfig(**config_of(tmp_path, ["a", "b"]))
    plan = ModelMerger(config).plan()

    from modelmerger_plugins import tokenizer

    with monkeypatch.context() as patched:
        patched.setattr(tokenizer, "matched", lambda *_: None)
        assert ModelMerger(config).plan().digest == plan.digest
    assert [note.message for note in ModelMerger(config).check_compatibility() if "vocab" in note.message] == []


def test_padding_is_the_donors_or_the_mean_of_the_sources(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, BASE, 16)
    write(tmp_path / "b", 2, MORE, 32)

    found = merged(config_of(tmp_path, ["a", "b"], tokenizer_source="b"))

    models = {name: (tensors_of(tmp_path / name), tokens) for name, tokens in (("a", BASE), ("b", MORE))}
    made = extended(models, MORE, 32, source="b")
    assert_same(found, merge_in_memory("weighted", list(made.values()), weights=[0.6, 0.4]))


def test_models_that_are_only_padded_go_together(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, BASE, 64)

    assert merged(config_of(tmp_path, ["a", "b"]))[EMBEDDING].shape == (12, COLUMNS)
    found = merged(config_of(tmp_path, ["a", "b"], tokenizer_source="b", overwrite=True))
    assert found[EMBEDDING].shape == (64, COLUMNS)
    assert found[BIAS].shape == (64,)


def test_of_the_same_tokens_all_but_the_rows_is_the_donors(tmp_path: Path) -> None:
    for name, rows in (("a", 12), ("b", 64)):
        write(tmp_path / name, 1, BASE, rows)
        (tmp_path / name / "generation_config.json").write_text(f'{{"eos_token_id":{2 if name == "a" else 5}}}')

    report = merge(MergeConfig(**config_of(tmp_path, ["a", "b"])))

    kept = (tmp_path / "merged/generation_config.json").read_bytes()
    assert kept == (tmp_path / "a/generation_config.json").read_bytes()
    said = [note.message for note in report.notes]
    assert "has the tokens of the others and 64 rows; the merged model has 12 rows, as 'a' has." in said
    assert not any("vocabularies differ" in message for message in said)
    assert report.figures == {}


def cutting(tokens: dict[str, int], **parts: Any) -> str:
    value = json.loads(fast(tokens))
    value["model"]["merges"] = parts.pop("merges", [])
    return json.dumps(value | parts)


@pytest.mark.parametrize(
    ("other", "parts", "due"),
    [
        (BASE, {"merges": ["a b", "c d"]}, "merges"),
        (BASE, {"merges": [["a", "b"]]}, ""),
        (BASE, {"merges": ["a b"], "normalizer": {"type": "NFKC"}, "pre_tokenizer": {"type": "Digits"}}, "normalizer and pre_tokenizer"),
        (MORE, {"merges": ["a b", "c d"]}, ""),
        (MORE, {"normalizer": {"type": "NFKC"}}, "normalizer"),
    ],
    ids=["merges", "spelling of merges", "both", "more merges for more tokens", "more tokens"],
)  # fmt: skip
@pytest.mark.parametrize("rows", [16, 20])
def test_what_cuts_texts_otherwise_is_a_note(
    tmp_path: Path, other: dict[str, int], parts: dict[str, Any], due: str, rows: int
) -> None:
    write(tmp_path / "a", 1, None, 16)
    (tmp_path / "a/tokenizer.json").write_text(cutting(BASE, merges=["a b"]))
    write(tmp_path / "b", 2, None, rows)
    (tmp_path / "b/tokenizer.json").write_text(cutting(other, **parts))

    notes = ModelMerger(MergeConfig(**config_of(tmp_path, ["a", "b"]))).check_compatibility()

    found = [note.message for note in notes if "cuts texts otherwise" in note.message]
    assert found == ([f"cuts texts otherwise than 'a', whose tokenizer is taken: other {due}."] if due else [])


@pytest.mark.parametrize("rule", ["owners", "base", "zero", "mean_subtokens"])
def test_rows_of_tokens_that_a_model_lacks(tmp_path: Path, rule: str) -> None:
    write(tmp_path / "a", 1, MORE, 16, dtype=torch.float32)
    write(tmp_path / "b", 2, BASE, 12, dtype=torch.float32)
    write(tmp_path / "base", 3, BASE | {"س": 12}, 13, dtype=torch.float32)
    config = config_of(tmp_path, ["a", "b"], "weighted", "base", tokenizer_source="a", missing_tokens=rule)

    found = merged(config)

    ours, theirs, base = (tensors_of(tmp_path / name)[HEAD] for name in ("a", "b", "base"))
    of_b = {
        "owners": (ours[12] + base[12]) / 2,
        "base": base[12],
        "zero": torch.zeros(COLUMNS),
        "mean_subtokens": (ours[12] + base[12]) / 2,  # no letter of it is in this model's vocabulary
    }[rule]
    torch.testing.assert_close(found[HEAD][12], 0.6 * ours[12] + 0.4 * of_b)
    torch.testing.assert_close(found[HEAD][5], 0.6 * ours[5] + 0.4 * theirs[5])
    alone = torch.zeros(COLUMNS) if rule == "zero" else ours[15]
    torch.testing.assert_close(found[HEAD][15], 0.6 * ours[15] + 0.4 * alone)


def test_a_token_is_made_of_the_pieces_that_its_text_is_cut_into(tmp_path: Path) -> None:
    letters = BASE | {"ab": 12, "cd": 13}
    write(tmp_path / "a", 1, letters | {"abcd": 14}, 16, dtype=torch.float32)
    write(tmp_path / "b", 2, letters, 14, dtype=torch.float32)
    content = json.loads((tmp_path / "b/tokenizer.json").read_text())
    content["model"]["merges"] = [["a", "b"], ["c", "d"]]
    content["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "b/tokenizer.json").write_text(json.dumps(content))

    found = merged(config_of(tmp_path, ["a", "b"], tokenizer_source="a", missing_tokens="mean_subtokens"))

    ours, theirs = tensors_of(tmp_path / "a")[EMBEDDING], tensors_of(tmp_path / "b")[EMBEDDING]
    torch.testing.assert_close(found[EMBEDDING][14], 0.6 * ours[14] + 0.2 * (theirs[12] + theirs[13]))


@pytest.mark.parametrize(
    ("entry", "due"),
    [
        ({"model": "b"}, lambda a, b: 0.6 * a["س"] + 0.4 * a["س"]),
        ({"model": "b", "token": "d", "force": True}, lambda a, b: b["d"]),
        ({"model": "b", "token": 3, "force": True}, lambda a, b: b["a"]),
        ({"token": "c"}, lambda a, b: 0.6 * a["س"] + 0.4 * b["c"]),
        ({"token": "c", "force": True}, lambda a, b: 0.6 * a["c"] + 0.4 * b["c"]),
        ({"zero": True}, lambda a, b: 0.6 * a["س"]),
        ({"zero": True, "force": True}, lambda a, b: 0 * a["س"]),
    ],
)
def test_a_token_can_come_from_where_an_option_says(tmp_path: Path, entry: dict[str, Any], due: Any) -> None:
    write(tmp_path / "a", 1, MORE, 16, dtype=torch.float32)
    write(tmp_path / "b", 2, BASE, 12, dtype=torch.float32)
    config = config_of(tmp_path, ["a", "b"], tokenizer_source="a", token_sources={"س": entry})
    if entry == {"model": "b"}:
        with pytest.raises(ConfigError, match=r"options\.token_sources\.س: 'b' has no token 'س'"):
            merge(MergeConfig(**config))
        return

    found = merged(config)

    ours, theirs = tensors_of(tmp_path / "a")[EMBEDDING], tensors_of(tmp_path / "b")[EMBEDDING]
    named = [{token: rows[row] for token, row in t.items()} for rows, t in ((ours, MORE), (theirs, BASE))]
    torch.testing.assert_close(found[EMBEDDING][12], due(*named))


def test_rows_are_made_where_vocabularies_are_equal_too(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, ord(name), BASE, 12, dtype=torch.float32)
    (tmp_path / "a/generation_config.json").write_text('{"eos_token_id":2}')
    given = {"a": {"zero": True, "force": True}, "b": {"token": "c", "force": True}, "d": {"model": "b"}}

    config = config_of(tmp_path, ["a", "b"], token_sources=given)
    report = merge(MergeConfig(**config))

    found, ours, theirs = (tensors_of(tmp_path / name)[EMBEDDING] for name in ("merged", "a", "b"))
    due = 0.6 * ours + 0.4 * theirs
    due[BASE["a"]], due[BASE["b"]] = 0, due[BASE["c"]]
    torch.testing.assert_close(found, due)
    kept = (tmp_path / "merged/generation_config.json").read_bytes()
    assert kept == (tmp_path / "a/generation_config.json").read_bytes()
    warned = [note.message for note in report.notes if note.severity == "warning" and "force" in note.message]
    assert warned == ["changes nothing for d, which every model has. Add force: true, or leave it out."]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"a": {"token": "typo", "force": True}}, r"no model has a token 'typo'\. Name another one"),
        ({"x": {"model": "b"}}, "is no token of the merged model's vocabulary"),
        ({"a": {"model": "c"}}, "no model is called 'c'. Name one of: a, b"),
        ({"a": {"zero": True, "model": "a"}}, "must say either zero: true, or a model"),
        ({"a": {}}, "must say either zero: true, or a model"),
        ({"a": {"source": "b"}}, "unknown key 'source'"),
        ({"a": {"token": 5}}, "only means something with 'model'"),
        ({"a": {"zero": "yes"}}, "must be true or false"),
    ],
)
def test_token_sources_that_make_no_sense_are_refused(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    write(tmp_path / "a", 1, MORE, 16)
    write(tmp_path / "b", 2, BASE, 12)

    with pytest.raises(ConfigError, match=words):
        merge(MergeConfig(**config_of(tmp_path, ["a", "b"], token_sources=given)))


def test_a_renamed_reserved_token_is_one_row_with_the_new_name(tmp_path: Path) -> None:
    reserved = BASE | {"<|reserved_special_token_0|>": 12, "<|reserved_special_token_1|>": 13}
    renamed = BASE | {"<|im_start|>": 12, "<|reserved_special_token_1|>": 13}
    write(tmp_path / "a", 1, reserved, 14, dtype=torch.float32, added=["<|reserved_special_token_0|>"])
    write(tmp_path / "b", 2, renamed, 14, dtype=torch.float32, added=["<|im_start|>"])

    found = merged(config_of(tmp_path, ["a", "b"]))

    theirs = tensors_of(tmp_path / "b")[EMBEDDING]
    torch.testing.assert_close(found[EMBEDDING][12], theirs[12])
    written = json.loads((tmp_path / "merged/tokenizer.json").read_text())
    assert written["added_tokens"][0] == {"id": 12, "content": "<|im_start|>", "special": True}
    assert written["model"]["vocab"]["<|reserved_special_token_1|>"] == 13


def test_a_renamed_token_has_its_new_name_in_every_file(tmp_path: Path) -> None:
    reserved = {"[PAD]": 0, "[unused1]": 1} | {letter: 2 + i for i, letter in enumerate("abcdefgh")}
    renamed = {{"[unused1]": "[عربي]"}.get(token, token): row for token, row in reserved.items()}
    for seed, (name, tokens) in enumerate((("a", reserved), ("b", renamed))):
        write(tmp_path / name, seed, None, 10, dtype=torch.float32)
        (tmp_path / name / "vocab.txt").write_bytes("\r\n".join([*tokens, ""]).encode())
    (tmp_path / "a/special_tokens_map.json").write_text('{"mask_token": "[unused1]"}')

    found = merged(config_of(tmp_path, ["a", "b"]))

    torch.testing.assert_close(found[EMBEDDING][1], tensors_of(tmp_path / "b")[EMBEDDING][1])
    assert (tmp_path / "merged/vocab.txt").read_bytes() == (tmp_path / "b/vocab.txt").read_bytes()
    assert json.loads((tmp_path / "merged/special_tokens_map.json").read_text()) == {"mask_token": "[عربي]"}


@pytest.mark.parametrize("preserve", [True, False])
def test_rows_are_matched_whether_or_not_the_tokenizer_goes_along(tmp_path: Path, preserve: bool) -> None:
    write(tmp_path / "a", 1, BASE, 12, dtype=torch.float32)
    write(tmp_path / "b", 2, MOVED, 12, dtype=torch.float32)

    found = merged(config_of(tmp_path, ["a", "b"], preserve_tokenizer=preserve))

    ours, theirs = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    for name in (EMBEDDING, HEAD, BIAS):
        torch.testing.assert_close(found[name], 0.6 * ours[name] + 0.4 * theirs[name].flip(0))
    assert (tmp_path / "merged/tokenizer.json").exists() == preserve


@pytest.mark.parametrize("options", [{"low_memory_mode": True}, {"max_shard_size": 400}, {"sequential_loading": True}])
def test_slices_and_workers_change_no_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, MORE, 20)
    due = merged(config_of(tmp_path, ["a", "b"], tokenizer_source="b"))

    config = config_of(tmp_path, ["a", "b"], tokenizer_source="b", overwrite=True, **options)
    merge(MergeConfig(**config))

    found: dict[str, torch.Tensor] = {}
    from safetensors.torch import load_file

    for file in (tmp_path / "merged").glob("*.safetensors"):
        found |= load_file(file)
    assert_same(found, due)


def test_another_tokenizer_or_rule_is_another_plan(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, MORE, 16)
    write(tmp_path / "b", 2, BASE, 12)

    def digest(**options: Any) -> str:
        return ModelMerger(MergeConfig(**config_of(tmp_path, ["a", "b"], **options))).plan().digest

    found = [digest(), digest(missing_tokens="zero"), digest(tokenizer_source="b")]
    (tmp_path / "b/tokenizer.json").write_text(fast(MOVED))
    found.append(digest())
    assert len(set(found)) == 4


def test_fewer_rows_than_tokens_are_an_error_with_both_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, MORE, 12)

    with pytest.raises(InputError, match=r"b/tokenizer\.json: has tokens up to 15 .* 'b' has 12 rows"):
        merge(MergeConfig(**config_of(tmp_path, ["a", "b"])))


@pytest.mark.parametrize("name", ["added_tokens.json", "vocab.json"])
def test_two_files_that_disagree_about_an_id_are_an_error(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, MORE, 16)
    (tmp_path / "b" / name).write_text('{"لا": 14}')

    with pytest.raises(InputError, match=rf"{name}: says that 'لا' is token 14, and tokenizer.json says 13"):
        merge(MergeConfig(**config_of(tmp_path, ["a", "b"])))


@pytest.mark.parametrize("which", ["a", "b", "both"])
def test_without_a_tokenizer_another_number_of_rows_is_an_error(tmp_path: Path, which: str) -> None:
    write(tmp_path / "a", 1, None if which != "b" else BASE, 12)
    write(tmp_path / "b", 2, None if which != "a" else MORE, 16)

    with pytest.raises(ModelCompatibilityError, match="16 rows here, 12 in 'a', and a tokenizer is missing") as caught:
        merge(MergeConfig(**config_of(tmp_path, ["a", "b"])))
    assert all(len(str(problem)) <= 300 for problem in caught.value.problems)


def test_unrelated_vocabularies_are_refused_with_the_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, {f"x{i}": i for i in range(20)} | {"a": 20}, 21)

    with pytest.raises(ModelCompatibilityError, match="has 21 tokens and 'a' 12, and they share 1: unrelated"):
        merge(MergeConfig(**config_of(tmp_path, ["a", "b"])))


def test_lost_tokens_are_a_warning_with_examples_and_the_way(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, MORE, 16)

    notes = ModelMerger(MergeConfig(**config_of(tmp_path, ["a", "b"]))).check_compatibility()

    (warning,) = [note.message for note in notes if note.severity == "warning"]
    assert warning == (
        "4 tokens of 'b' are not in the merged vocabulary ('س', 'لا', 'م'), and what was learnt of them is lost. "
        "Set options.tokenizer_source to b, or to union."
    )
    said = "\n".join(note.message for note in notes)
    assert "gives the vocabulary: 12 tokens, 12 rows" in said
    assert "extends the vocabulary of 'a': 12 tokens shared, 4 added, 0 missing" in said


def test_of_a_union_they_are_a_note(tmp_path: Path) -> None:
    """Too few of a script to lead it."""
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, MORE, 16)

    config = MergeConfig(**config_of(tmp_path, ["a", "b"], tokenizer_source="union"))
    (note,) = [note for note in ModelMerger(config).check_compatibility() if "is lost" in note.message]

    assert note.severity == "note"
    assert note.message.startswith("4 tokens of 'b' are not in the merged vocabulary (")
    assert note.message.endswith("is lost. To keep them, set options.tokenizer_source to b.")


def test_the_plan_says_who_gives_config_and_who_the_tokenizer(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, MORE, 16)

    def lines(**options: Any) -> list[str]:
        return str(ModelMerger(MergeConfig(**config_of(tmp_path, ["a", "b"], **options))).plan()).splitlines()[1:3]

    assert [line.split(" (")[0] for line in lines()] == [
        "  a: weight 0.6, gives config and tokenizer",
        "  b: weight 0.4",
    ]
    assert [line.split(" (")[0] for line in lines(tokenizer_source="b")] == [
        "  a: weight 0.6, gives config",
        "  b: weight 0.4, gives tokenizer",
    ]


def test_a_check_without_options_still_refuses_and_says_what_a_merge_does(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, MORE, 16)

    with pytest.raises(ModelCompatibilityError, match="`merge` matches rows by token"):
        check_model_compatibility([{"path": str(tmp_path / "a")}, {"path": str(tmp_path / "b")}])


@pytest.mark.parametrize(("strategy", "base"), [("weighted", None), ("ties", "base")])
def test_a_merge_within_a_merge_matches_rows_as_it_does_when_it_is_published(
    tmp_path: Path, strategy: str, base: str | None
) -> None:
    ends = {"generation_config": {"eos_token_id": 2}}
    for seed, (name, tokens, rows) in enumerate(
        [("a", BASE, 12), ("b", MOVED, 14), ("base", BASE, 12), ("c", MORE, 16)]
    ):
        write(tmp_path / name, seed, tokens, rows, config=ends)
        (tmp_path / name / "generation_config.json").write_text(json.dumps({"eos_token_id": seed}))
    options = STRATEGIES[strategy][0]
    config = config_of(tmp_path, ["a", "b"], strategy, base, **options)
    published = {**config, "output_path": str(tmp_path / "inner")}
    published["options"] = {**config["options"], "torch_dtype": "float32"}
    merge(MergeConfig(**published))

    inner = {key: config[key] for key in ("strategy", "models", "base_model") if key in config} | {"options": options}
    outer = config_of(tmp_path, ["inner", "c"], tokenizer_source="c", torch_dtype="float32")
    due = merged({**outer, "output_path": str(tmp_path / "due")})
    outer["models"][0] = {"merge": inner, "name": "inner", "weight": outer["models"][0]["weight"]}
    report = merge(MergeConfig(**outer))

    assert_same(tensors_of(tmp_path / "merged"), due)
    assert due[EMBEDDING].shape == (16, COLUMNS)
    for name in ("config.json", "generation_config.json"):
        of_merged, of_due = (json.loads((tmp_path / path / name).read_text()) for path in ("merged", "due"))
        assert of_merged == of_due
    said = [note.message for note in report.notes]
    assert any("Rows are matched by token" in message for message in said)


def test_a_merge_within_a_merge_has_its_donors_tokens_and_says_what_is_lost(tmp_path: Path) -> None:
    for name, tokens, rows in (("a", BASE, 12), ("b", MORE, 16)):
        write(tmp_path / name, 1, tokens, rows)
    config = config_of(tmp_path, ["a", "b"], tokenizer_source="union")
    inner = {"strategy": "weighted", "models": config["models"]}
    config["models"] = [{"merge": inner}, {"path": str(tmp_path / "a")}]

    report = merge(MergeConfig(**config))

    assert tensors_of(tmp_path / "merged")[EMBEDDING].shape == (12, COLUMNS)
    assert any("publish this merge first, with tokenizer_source: union." in note.message for note in report.notes)


def test_a_token_that_is_renamed_within_a_merge_is_refused(tmp_path: Path) -> None:
    reserved = "<|reserved_special_token_0|>"
    write(tmp_path / "a", 1, BASE | {reserved: 12}, 13)
    write(tmp_path / "b", 2, BASE | {"<|im_end|>": 12}, 13)
    config = config_of(tmp_path, ["a", "b"])
    config["models"] = [{"merge": {"strategy": "weighted", "models": config["models"]}}, {"path": str(tmp_path / "a")}]

    with pytest.raises(ModelCompatibilityError, match="within another merge tokens keep their names"):
        merge(MergeConfig(**config))


@pytest.mark.parametrize(("other", "multiple", "rows"), [(BASE, 8, 16), (BASE, 12, 12), (BASE, 10, 20), (MORE, 3, 12)])
def test_rows_are_padded_to_a_multiple_of_the_tokens(
    tmp_path: Path, other: dict[str, int], multiple: int, rows: int
) -> None:
    write(tmp_path / "a", 1, BASE, 12)
    write(tmp_path / "b", 2, other, 16)
    (tmp_path / "a/generation_config.json").write_text('{"eos_token_id": 2}')

    found = merged(config_of(tmp_path, ["a", "b"], pad_to_multiple_of=multiple))

    tensors = {name: (tensors_of(tmp_path / name), tokens) for name, tokens in (("a", BASE), ("b", other))}
    made = extended(tensors, BASE, rows, source="a")
    assert_same(found, merge_in_memory("weighted", list(made.values()), weights=[0.6, 0.4]))
    assert json.loads((tmp_path / "merged/config.json").read_text())["vocab_size"] == rows


def test_equal_vocabularies_are_padded_and_all_else_is_the_donors(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, ord(name), BASE, 12)
    (tmp_path / "a/generation_config.json").write_text('{"eos_token_id":2}')

    config = MergeConfig(**config_of(tmp_path, ["a", "b"], pad_to_multiple_of=64))
    report = merge(config)

    found, ours, theirs = (tensors_of(tmp_path / name)[EMBEDDING].float() for name in ("merged", "a", "b"))
    assert found.shape == (64, COLUMNS)
    padding = [model.mean(dim=0).bfloat16().float() for model in (ours, ours)]  # of the source, for all models
    torch.testing.assert_close(found[12:], (0.6 * padding[0] + 0.4 * padding[1]).expand(52, -1), rtol=8e-3, atol=1e-3)
    torch.testing.assert_close(found[:12], 0.6 * ours + 0.4 * theirs, rtol=8e-3, atol=1e-3)
    assert (tmp_path / "merged/generation_config.json").read_bytes() == (
        tmp_path / "a/generation_config.json"
    ).read_bytes()
    (note,) = [note for note in report.notes if "pad_to_multiple_of" in note.message]
    assert (note.severity, note.message[:37]) == ("note", "has 12 rows, and the merged model 64,")
    assert report.figures == {}


def test_ids_of_special_tokens_are_those_of_the_vocabulary(tmp_path: Path) -> None:
    told = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    audio = {"audio_config": {"vocab_size": 12}, "text_config": {"vocab_size": 12, "eos_token_id": 2}}
    write(tmp_path / "a", 1, BASE, 12, config=told | audio | {"image_token_index": 5})
    write(tmp_path / "b", 2, MOVED | {"<|end|>": 12}, 13, config={"bos_token_id": 10, "eos_token_id": [9, 12]})
    (tmp_path / "a/generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.5}')

    merge(MergeConfig(**config_of(tmp_path, ["a", "b"], tokenizer_source="b")))

    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (10, [9, 12])
    assert (config["pad_token_id"], config["image_token_index"]) == (MOVED["<unk>"], MOVED["c"])
    assert config["vocab_size"] == config["text_config"]["vocab_size"] == 13
    assert config["audio_config"]["vocab_size"] == 12
    generation = json.loads((tmp_path / "merged/generation_config.json").read_text())
    assert generation == {"eos_token_id": [9, 12], "temperature": 0.5}


def test_ids_that_the_donor_leaves_open_are_those_of_the_vocabulary(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, BASE, 12, config={"eos_token_id": 2, "pad_token_id": None})
    write(tmp_path / "b", 2, MORE, 16, config={"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    (tmp_path / "a/generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.5}')
    (tmp_path / "b/generation_config.json").write_text('{"eos_token_id": 2, "pad_token_id": 0, "top_p": 0.5}')

    merge(MergeConfig(**config_of(tmp_path, ["a", "b"], tokenizer_source="b")))

    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert [config[f"{key}_token_id"] for key in ("bos", "eos", "pad")] == [1, 2, 0]
    generation = json.loads((tmp_path / "merged/generation_config.json").read_text())
    assert generation == {"eos_token_id": 2, "temperature": 0.5, "pad_token_id": 0}


def test_all_ends_of_an_answer_that_the_vocabulary_has_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, BASE | {"<|im_end|>": 12}, 13, config={"eos_token_id": 2})
    write(tmp_path / "b", 2, MOVED | {"<|im_end|>": 12}, 13, config={"eos_token_id": 12})
    (tmp_path / "a/generation_config.json").write_text('{"eos_token_id": 2}')

    merge(MergeConfig(**config_of(tmp_path, ["a", "b"])))

    assert json.loads((tmp_path / "merged/generation_config.json").read_text()) == {"eos_token_id": [2, 12]}


def test_a_recipe_fills_rows_as_mergekit_does(tmp_path: Path) -> None:
    """The base's row if it has the token, else the mean of those that have it, though linear does not act on a base."""
    of_base, of_b, of_c = BASE | {"س": 12}, BASE | {"س": 13, "ع": 12}, BASE | {"ع": 12}
    vocabularies = {"a": (of_base, 13), "b": (of_b, 14), "c": (of_c, 13), "d": (BASE, 12)}
    for seed, (name, (tokens, rows)) in enumerate(vocabularies.items()):
        write(tmp_path / name, seed, tokens, rows, dtype=torch.float32)
    models = "".join(f"  - {{model: {tmp_path / name}, parameters: {{weight: 1}}}}\n" for name in vocabularies)
    tokenizer = f"tokenizer: {{source: {tmp_path / 'b'}, pad_to_multiple_of: 16}}\n"
    (tmp_path / "recipe.yml").write_text(
        f"merge_method: linear\nbase_model: {tmp_path / 'a'}\nmodels:\n{models}dtype: float32\n{tokenizer}"
    )
    config = MergeConfig.from_file(str(tmp_path / "recipe.yml")).as_dict()
    found = merged(
        {**config, "output_path": str(tmp_path / "merged"), "options": {**config["options"], "check_loading": False}}
    )

    a, b, c, d = (tensors_of(tmp_path / name)[EMBEDDING] for name in "abcd")
    assert found[EMBEDDING].shape == (16, COLUMNS)
    torch.testing.assert_close(found[EMBEDDING][:12], (a[:12] + b[:12] + c[:12] + d[:12]) / 4)
    torch.testing.assert_close(found[EMBEDDING][13], (a[12] + b[13] + a[12] + a[12]) / 4)  # "س", which a has
    owners = (b[12] + c[12]) / 2
    torch.testing.assert_close(found[EMBEDDING][12], (owners + b[12] + c[12] + owners) / 4)  # "ع", which a lacks
