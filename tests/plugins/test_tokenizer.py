"""The donor's tokenizer files: every one, byte for byte, and nothing else; and how the models' tokenizers are compared."""

import json
import os
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import MergeConfig, ModelCompatibilityError, ModelMerger, merge

FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "preprocessor_config.json",
    "processor_config.json",
    "additional_chat_templates/tools.jinja",
    "additional_chat_templates/rag.jinja",
]
OTHERS = [
    "vocab.py",
    "tokenization_custom.py",
    "vocab.PY",
    "vocab.bin",
    "model.pkl",
    "additional_chat_templates/code.py",
    "training_args.bin",
    "trainer_state.json",
    "optimizer.pt",
    "my_tokenizer.json",
]


def fill(folder: Any, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        json_in_two_lines = b'{"n":\r\n %d}' % number
        (folder / name).write_bytes(json_in_two_lines if name.endswith(".json") else b"\xff\0\r\n" + bytes([number]))


def beside(models: SimpleNamespace) -> set[str]:
    found = {path.relative_to(models.output).as_posix() for path in models.output.rglob("*") if path.is_file()}
    return found - {"README.md", "config.json", "model.safetensors", "modelmerger.json"}


def notes(report: Any) -> list[str]:
    return [note.message for note in report.notes if "left behind" not in note.message]


def test_tokenizer_files_are_copied_byte_for_byte_and_nothing_else(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    fill(models.a, FILES + OTHERS)
    fill(models.b, ["tokenizer.json", "spiece.model"])

    merge(MergeConfig(**config))

    assert beside(models) == set(FILES)
    assert all((models.output / name).read_bytes() == (models.a / name).read_bytes() for name in FILES)


def test_without_preserve_tokenizer_none_is_written(models: SimpleNamespace, config: dict[str, Any]) -> None:
    fill(models.a, FILES)
    config["options"] = {"preserve_tokenizer": False}

    report = merge(MergeConfig(**config))

    assert beside(models) == set()
    assert notes(report) == []


def test_without_preserve_tokenizer_not_even_a_pipe_is_in_the_way(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    os.mkfifo(models.a / "tokenizer.model")
    config["options"] = {"preserve_tokenizer": False}

    merge(MergeConfig(**config))

    assert beside(models) == set()


def test_a_donor_without_tokenizer_is_a_note(models: SimpleNamespace, config: dict[str, Any]) -> None:
    fill(models.b, FILES)

    report = merge(MergeConfig(**config))

    assert beside(models) == set()
    assert notes(report) == ["has no tokenizer files, so the merged model gets none."]


def test_the_base_model_gives_the_tokenizer_when_there_is_one(models: SimpleNamespace, config: dict[str, Any]) -> None:
    fill(models.a, ["tokenizer.model"])
    fill(models.base, ["vocab.txt"])
    config |= {"strategy": "task_arithmetic", "base_model": str(models.base)}

    merge(MergeConfig(**config))

    assert beside(models) == {"vocab.txt"}


def test_a_folder_of_templates_that_is_a_link_is_not_followed(models: SimpleNamespace, config: dict[str, Any]) -> None:
    fill(models.folder, ["outside/x.jinja"])
    fill(models.a, ["tokenizer.json"])
    (models.a / "additional_chat_templates").symlink_to(models.folder / "outside")

    merge(MergeConfig(**config))

    assert beside(models) == {"tokenizer.json"}


@pytest.mark.parametrize(
    "name",
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
     "preprocessor_config.json", "modules.json"],
)  # fmt: skip
@pytest.mark.parametrize("text", ["nonsense", "", '{"a": '])
def test_a_document_that_no_loader_takes_is_refused(
    models: SimpleNamespace, config: dict[str, Any], name: str, text: str
) -> None:
    (models.a / name).write_text(text)
    with pytest.raises(ModelCompatibilityError, match=r"is not sound JSON.*Mend it, or remove it"):
        merge(MergeConfig(**config))
    assert not models.output.exists()
    merge(MergeConfig(**{**config, "models": config["models"][::-1]}))  # that of the donor alone is written


@pytest.mark.parametrize("text", ["[1]", '"text"', "null"])
def test_so_is_another_value_than_an_object(models: SimpleNamespace, config: dict[str, Any], text: str) -> None:
    (models.a / "special_tokens_map.json").write_text(text)
    with pytest.raises(ModelCompatibilityError, match=r"is not a JSON object\. Mend it, or remove it"):
        merge(MergeConfig(**config))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("padding", [0, 5 << 20])
def test_a_byte_order_mark_is_warned_of(
    models: SimpleNamespace, config: dict[str, Any], name: str, padding: int
) -> None:
    (models.a / name).write_text("\ufeff" + json.dumps({"model": {"vocab": {}}}) + " " * padding)
    notes = ModelMerger(MergeConfig(**config)).check_compatibility()
    message = "begins with a byte order mark, with which transformers does not load it. Save it as UTF-8 without one."
    assert [(note.severity, note.message) for note in notes if "mark" in note.message] == [("warning", message)]


def test_a_tokenizer_without_a_model_is_warned_of(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.a / "tokenizer.json").write_text("{}")
    notes = ModelMerger(MergeConfig(**config)).check_compatibility()
    assert [note.severity for note in notes if "has no 'model'" in note.message] == ["warning"]


def tokenizer(vocabulary: Any, added: Any = ()) -> str:
    tokens = [{"content": content, "id": row} for content, row in added]
    return json.dumps({"model": {"vocab": vocabulary}, "added_tokens": tokens})


UNIGRAM = [["<unk>", 0.0], ["a", -1.5], ["b", -2.0]]


@pytest.mark.parametrize(
    ("ours", "theirs", "counts"),
    [
        (tokenizer({"a": 0, "b": 1}), tokenizer({"b": 1, "a": 0}), None),
        (tokenizer({"a": 0, "b": 1}), tokenizer({"a": 1, "b": 0}), (2, 0, 0, 2)),
        (tokenizer({"a": 0, "b": 1}), tokenizer({"a": 0, "c": 1}), (1, 1, 1, 0)),
        (tokenizer({"a": 0}), tokenizer({"a": 0}, [("<new>", 1)]), (1, 1, 0, 0)),
        (tokenizer({"a": 0}, [("<s>", 1)]), tokenizer({"a": 0}, [("<s>", 2)]), (2, 0, 0, 1)),
        (tokenizer(UNIGRAM), tokenizer({"<unk>": 0, "a": 1, "b": 2}), None),
        (tokenizer(UNIGRAM), tokenizer(UNIGRAM[::-1]), (3, 0, 0, 2)),
    ],
    ids=["order", "swapped", "another", "added", "added elsewhere", "unigram", "unigram turned around"],
)
def test_how_vocabularies_lie_to_each_other_is_said_with_counts(
    models: SimpleNamespace,
    config: dict[str, Any],
    ours: str,
    theirs: str,
    counts: tuple[int, int, int, int] | None,
) -> None:
    (models.a / "tokenizer.json").write_text(ours)
    (models.b / "tokenizer.json").write_text(theirs)

    notes = ModelMerger(MergeConfig(**config)).check_compatibility()

    found = [note.message for note in notes if "shared" in note.message]
    assert len(found) == (0 if counts is None else 1)
    if counts is not None:
        shared, added, missing, moved = counts
        tokens = "token" if shared == 1 else "tokens"
        assert f"{shared} {tokens} shared, {added} added, {missing} missing; {moved} of those shared stand" in found[0]
        assert [note.severity for note in notes if "lost" in note.message] == ["warning"] * bool(added)


def test_the_option_belongs_to_every_strategy(models: SimpleNamespace, config: dict[str, Any]) -> None:
    for strategy in ("weighted", "slerp"):
        MergeConfig(**{**config, "strategy": strategy, "options": {"preserve_tokenizer": True}})
