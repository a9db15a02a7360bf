"""Datasets read strictly; how many texts and prompts are taken, and which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from modelmerger import InputError, LabelScores, UnmeasurableError, ValidationSettings
from modelmerger.validation.texts import asked_prompts, check_dataset, read_dataset, scored_texts, spread

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


def test_a_sample_is_spread_over_labels_and_over_each_list() -> None:
    texts = {"a": ["a0", "a1", "a2", "a3"], "b": ["b0"], "c": ["c0", "c1", "c2", "c3"]}
    assert spread(texts, None) == texts
    assert spread(texts, 5) == {"a": ["a0", "a2"], "b": ["b0"], "c": ["c0", "c2"]}
    assert spread(texts, 2) == {"a": ["a0"], "b": ["b0"]}
    assert spread(texts, 100) == texts
    assert spread({}, 3) == {}


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 60), ({"sample_size": 7}, 7), ({"quick_test": True}, 50), ({"quick_test": True, "sample_size": 7}, 7)],
)
def test_sample_size_and_quick_test_say_how_many_texts_are_scored(settings: dict[str, Any], count: int) -> None:
    texts = scored_texts(ValidationSettings(**settings), provide)
    assert sum(map(len, texts.values())) == count


def test_prompts_come_from_the_config_or_else_from_plugins() -> None:
    assert prompts() == SHIPPED
    assert prompts(test_prompts=("e", "g")) == {"": ["e", "g"]}
    assert prompts(test_prompts={"gulf": ("g",)}) == {"gulf": ["g"]}
    assert prompts(sample_size=3) == {"egyptian": ["e0", "e15"], "gulf": ["g0"]}


def test_a_quick_test_asks_one_prompt_per_label() -> None:
    assert prompts(quick_test=True) == {"egyptian": ["e0"], "gulf": ["g0"]}
    assert prompts(quick_test=True, test_prompts=("e1", "e2", "g1")) == {"": ["e1", "g1"]}


def test_where_no_plugin_answers_there_are_no_texts_and_no_guesses() -> None:
    def none(_: Any) -> Any:
        raise UnmeasurableError("nobody")

    assert scored_texts(ValidationSettings(), none) == {}
    assert asked_prompts(ValidationSettings(), none, none) == {}
    assert asked_prompts(ValidationSettings(quick_test=True, test_prompts=("e", "g")), none, none) == {"": ["e"]}
