"""Which files go along, by their names and contents, and that nothing else is left behind without a word."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import InputChangedError, InputError, MergeConfig, ModelMerger, Watch, merge, verify

TOKENIZERS = (
    *("source.spm", "target.spm", "qwen.tiktoken", "bpe.codes", "vocab.bpe", "spiece.model", "tokenizer.model.v3"),
    *("target_vocab.json", "vocab.tsv", "dict.txt", "tekken.json", "normalizer.json", "rwkv_vocab_v20230424.txt"),
    *("video_preprocessor_config.json", "processor_config.json", "chat_template.json"),
)
LEFT = ("vocab.js", "setup.exe", "tokenization_x.py", "pytorch_model.bin", "notes.pdf", "tokenizer.model.exe")
MODULES = [
    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    {"idx": 3, "path": "../b", "type": "sentence_transformers.models.Dense"},
]


def fill(directory: Path, *names: str, content: bytes = b"{}") -> None:
    for name in names:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)


def written(models: SimpleNamespace) -> set[str]:
    return {path.relative_to(models.output).as_posix() for path in models.output.rglob("*") if path.is_file()}


def test_files_of_known_names_go_along_and_one_note_names_the_others(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    fill(models.a, *TOKENIZERS, *LEFT, "optimizer.pt", "trainer_state.json", "._vocab.json", "runs/events")
    fill(models.b, *TOKENIZERS, "ETHICS.txt")

    report = merge(MergeConfig(**config))

    assert written(models) == {*TOKENIZERS, "README.md", "config.json", "model.safetensors", "modelmerger.json"}
    notes = {note.where: note.message for note in report.notes}
    assert set(notes) == {str(models.a), str(models.b)}
    assert notes[str(models.a)].startswith("6 files left behind: ")
    assert all(name in notes[str(models.a)] for name in LEFT)
    assert notes[str(models.b)].startswith("1 file left behind: ETHICS.txt.")
    assert dict(report.beside.copied) == dict.fromkeys(TOKENIZERS, "a")
    assert {"runs/", "optimizer.pt", *LEFT} < set(report.beside.left["a"])
    manifest = json.loads((models.output / "modelmerger.json").read_text())
    assert manifest["beside"] == report.as_dict()["beside"] == report.beside.as_dict()
    assert verify(models.output)


def test_an_embedding_model_keeps_its_modules(models: SimpleNamespace, config: dict[str, Any]) -> None:
    own = (
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
    )
    fill(models.a, "modules.json", content=json.dumps(MODULES).encode())
    fill(models.a, *own, "2_Dense/code.py", "3_Other/config.json")
    fill(models.a, "2_Dense/model.safetensors", content=b"a")
    fill(models.b, "2_Dense/model.safetensors", content=b"b")

    report = merge(MergeConfig(**config))

    assert {"modules.json", "2_Dense/model.safetensors", *own} < written(models)
    assert not {"2_Dense/code.py", "3_Other/config.json"} & written(models)
    (warning,) = [note for note in report.notes if note.severity == "warning"]
    assert warning.where.endswith("a/2_Dense/model.safetensors")
    assert "is the donor's as it is" in warning.message


def test_modules_that_are_code_or_pickled_are_said(models: SimpleNamespace, config: dict[str, Any]) -> None:
    modules = [{"path": "", "type": "custom_st.Transformer"}, {"path": "2_Dense", "type": "sentence_transformers.X"}]
    fill(models.a, "modules.json", content=json.dumps(modules).encode())
    fill(models.a, "2_Dense/config.json", "2_Dense/pytorch_model.bin")

    said = [str(note) for note in merge(MergeConfig(**config)).notes if note.severity == "warning"]

    assert ["custom_st.Transformer" in said[0], "2_Dense/pytorch_model.bin: is pickled" in said[1]] == [True, True]


def test_code_that_a_tokenizer_names_is_left_out_and_said(models: SimpleNamespace, config: dict[str, Any]) -> None:
    fill(models.a, "tokenizer_config.json", "preprocessor_config.json", content=b'{"auto_map": {"A": "x.A"}, "b": 1}')

    report = merge(MergeConfig(**config))

    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        assert json.loads((models.output / name).read_text()) == {"b": 1}
        (warning,) = [note.message for note in report.notes if note.where == str(models.a / name)]
        assert "auto_map" in warning
        assert "if you trust them" in warning


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "Git LFS pointer .* `git lfs pull`"),
        (b"<!DOCTYPE html><html>", "is an HTML page"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "is an AppleDouble file"),
    ],
)
@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "spiece.model", "preprocessor_config.json", "LICENSE"])
def test_what_stands_in_the_place_of_a_file_is_refused(
    models: SimpleNamespace, config: dict[str, Any], name: str, content: bytes, words: str
) -> None:
    fill(models.a, name, content=content)

    with pytest.raises(InputError, match=words) as refusal:
        ModelMerger(MergeConfig(**config)).check_compatibility()

    assert len(refusal.value.problems) == 1
    assert refusal.value.problems[0].where == str(models.a / name)


def test_files_are_limited_together(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B22: Sparse files that take no disk."""
    for number in range(5):
        fill(models.a, f"{number}.model")
        os.truncate(models.a / f"{number}.model", 250 << 20)

    with pytest.raises(InputError, match="has 5 files beside the weights to copy, 1,310,720,000 bytes together"):
        merge(MergeConfig(**config))

    assert not models.output.exists()


def test_so_is_their_number(models: SimpleNamespace, config: dict[str, Any]) -> None:
    fill(models.a, *(f"{number}.spm" for number in range(1_001)))

    with pytest.raises(InputError, match="has 1,001 files beside the weights to copy"):
        ModelMerger(MergeConfig(**config)).check_compatibility()


@pytest.mark.parametrize("name", ["tokenizer.json", "LICENSE", "preprocessor_config.json"])
@pytest.mark.parametrize("how", ["renamed over", "deleted"])
def test_a_file_that_changes_meanwhile_ends_the_merge(
    models: SimpleNamespace, config: dict[str, Any], name: str, how: str
) -> None:
    fill(models.a, name, content=b'{"old": 1}')

    def meanwhile(_: int, __: int) -> None:
        if how == "deleted":
            (models.a / name).unlink(missing_ok=True)
        else:
            fill(models.folder, "new", content=b'{"new": 2}')
            (models.folder / "new").replace(models.a / name)

    with pytest.raises(InputChangedError, match=name):
        merge(MergeConfig(**config), Watch(progress=meanwhile))

    assert not models.output.exists()


def test_a_generation_config_that_changes_meanwhile_is_the_old_one(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    fill(models.a, "generation_config.json", content=b'{"eos_token_id":2}')

    def meanwhile(_: int, __: int) -> None:
        (models.a / "generation_config.json").unlink(missing_ok=True)

    merge(MergeConfig(**config), Watch(progress=meanwhile))

    assert (models.output / "generation_config.json").read_bytes() == b'{"eos_token_id":2}'
