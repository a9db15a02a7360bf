"""Datasets read strictly; how many texts and prompts are taken, and which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from modelmerger import InputError, LabelScores, UnmeasurableError, ValidationSettings
from modelmerger.validation.texts import asked_prompts, check_dataset, chosen, read_dataset, scored_texts

SHIPPED = {"egyptian": [f"e{i}" for i in range(30)], "gulf": [f"g{i}" for i in range(30)]}


def provide(_: str) -> dict[str, list[str]]:
    return SHIPPED


def score(texts: Sequence[str]) -> LabelScores:
    rows = [(1.0, 0.0) if text.startswith("e") else (0.0, 1.0) for text in texts]
    return LabelScores(scorer="first letter", stated="", labels=("egyptian", "gulf"), rows=rows)


def prompts(**settings: Any) -> dict[str, list[str]]:
    found = asked_prompts(ValidationSettings(**settings), provide, score)
    return {label: list(group) for label, group in found.items()}


def test_a_text_file_holds_a_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffشلونك؟\r\n\n  two\u2028words \n".encode())
    assert read_dataset(str(path)) == {"": ["شلونك؟", "two\u2028words"]}


def test_a_jsonl_file_may_give_labels_under_the_key_dialect(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(
        '{"text": "إزيك؟", "dialect": "egyptian"}\n\n{"text": "hello", "id": 3}\n{"text": "x", "dialect": "egyptian"}\n'
    )
    assert read_dataset(str(path)) == {"egyptian": ["إزيك؟", "x"], "": ["hello"]}


def test_a_folder_has_a_file_for_each_label(tmp_path: Path) -> None:
    (tmp_path / "gulf.txt").write_text("شلونك؟\n\nوينك؟\n")
    (tmp_path / "english.txt").write_text("hello\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "notes.md").write_text("no text")
    assert read_dataset(str(tmp_path)) == {"english": ["hello"], "gulf": ["شلونك؟", "وينك؟"]}
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"bad.txt: is not text in UTF-8"):
        read_dataset(str(tmp_path))
    (tmp_path / "bad.txt").unlink()
    (tmp_path / "out.txt").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match=r"out.txt"):
        read_dataset(str(tmp_path))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"holds no texts. Put a file LABEL.txt"):
        read_dataset(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": ', "line 2 is no JSON"),
        ("a.jsonl", b'{"txt": "x"}', "line 1 is not an object with a 'text'"),
        ("a.jsonl", b'["x"]', "line 1 is not an object with a 'text'"),
        ("a.jsonl", b'{"text": "x", "dialect": 3}', "line 1 is not an object with a 'text'"),
        ("a.jsonl", b"[" * 100_000, "line 1 is no JSON"),
        ("a.txt", b"\n \n", "holds no text"),
        ("a.txt", b"ab\xff", r"is not text in UTF-8 \(byte 2\)"),
    ],
)
def test_a_bad_dataset_is_a_sentence(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_dataset(str(tmp_path / name))


def test_a_dataset_is_looked_at_before_the_merge_only_if_it_will_be_needed(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.txt")
    check_dataset(None)
    check_dataset(ValidationSettings(run_tests=False, dataset=missing))
    with pytest.raises(InputError, match=r"missing.txt: cannot be opened: No such file"):
        check_dataset(ValidationSettings(dataset=missing))


def test_a_sample_is_shared_out_among_labels_and_drawn_by_the_seed() -> None:
    texts = {"a": [f"a{i}" for i in range(40)], "b": ["b0"], "c": [f"c{i}" for i in range(40)]}
    assert chosen(texts, None, None, 0) == texts
    assert chosen(texts, 100, None, 0) == texts
    assert chosen({}, 3, 32, 0) == {}
    five = chosen(texts, 5, None, 0)
    assert {label: len(group) for label, group in five.items()} == {"a": 2, "b": 1, "c": 2}
    assert chosen(texts, 2, None, 0).keys() == {"a", "b"}
    each = chosen(texts, None, 32, 0)
    assert {label: len(group) for label, group in each.items()} == {"a": 32, "b": 1, "c": 32}
    for label, group in each.items():
        assert group == [text for text in texts[label] if text in group]  # in their order
    assert chosen(texts, None, 32, 0) == each
    assert chosen(texts, None, 32, 1)["a"] != each["a"] != chosen(texts, None, 32, 2)["a"]
    assert len({tuple(chosen(texts, 4, None, seed)["a"]) for seed in range(50)}) > 25


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 60), ({"sample_size": "all"}, 60), ({"sample_size": 7}, 7), ({"sample_size": 60}, 60),
        ({"quick_test": True}, 50), ({"quick_test": True, "sample_size": "all"}, 50), ({"quick_test": True, "sample_size": 7}, 7),
    ],
)  # fmt: skip
def test_sample_size_and_quick_test_say_how_many_texts_are_scored(settings: dict[str, Any], count: int) -> None:
    texts = scored_texts(ValidationSettings(**settings), provide)
    assert sum(map(len, texts.values())) == count


def test_prompts_come_from_the_config_or_else_from_plugins() -> None:
    assert prompts() == SHIPPED
    assert prompts(test_prompts=("e", "g")) == {"": ["e", "g"]}
    assert prompts(test_prompts={"gulf": ("g",)}) == {"gulf": ["g"]}
    three = prompts(sample_size=3)
    assert {label: len(group) for label, group in three.items()} == {"egyptian": 2, "gulf": 1}
    assert prompts(sample_size=3, seed=4) != three
    many = {"gulf": tuple(map(str, range(40)))}
    assert [len(prompts(test_prompts=many, sample_size=size)["gulf"]) for size in (None, "all")] == [32, 40]


def test_a_quick_test_asks_one_prompt_per_label() -> None:
    assert prompts(quick_test=True) == {"egyptian": ["e0"], "gulf": ["g0"]}
    assert prompts(quick_test=True, test_prompts=("e1", "e2", "g1")) == {"": ["e1", "g1"]}


def test_where_no_plugin_answers_there_are_no_texts_and_no_guesses() -> None:
    def none(_: Any) -> Any:
        raise UnmeasurableError("nobody")

    assert scored_texts(ValidationSettings(), none) == {}
    assert asked_prompts(ValidationSettings(), none, none) == {}
    assert asked_prompts(ValidationSettings(quick_test=True, test_prompts=("e", "g")), none, none) == {"": ["e"]}
