"""Lines to tune on and lines to test on, which never mix."""

import json
from pathlib import Path

import pytest
from modelmerger import ConfigError, InputError
from modelmerger_plugins.tune.coordinates import granularity
from modelmerger_plugins.tune.nearness import near_groups
from modelmerger_plugins.tune.opened import read
from modelmerger_plugins.tune.texts import texts_of

from tests.plugins.tune.conftest import lines_of


def written(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_lines_that_differ_in_marks_and_punctuation_or_a_word_are_nearly_the_same() -> None:
    lines = [
        "شلونك اليوم يا خوي العزيز",
        "the quick brown fox jumps over the lazy dog",
        "شَلونك اليوم، يا خوي العـزيز!",
        "the quick brown fox jumps over a lazy dog",
        "وين رايح هالحزة",
    ]
    assert near_groups(lines) == [0, 1, 0, 1, 4]


def test_a_third_is_for_testing_whatever_the_order_and_near_duplicates_stay_together(tmp_path: Path) -> None:
    own = lines_of("a", 30)
    both = [*own, *(line + "!" for line in own)]
    found = texts_of(written(tmp_path / "a.txt", both), "", [])
    other = texts_of(written(tmp_path / "a.txt", both[::-1]), "", [])
    assert len(found.test["a"]) == pytest.approx(len(both) / 3, abs=2)
    assert set(found.test["a"]) == set(other.test["a"])
    assert not {line.strip("!") for line in found.test["a"]} & {line.strip("!") for line in found.tune["a"]}


@pytest.mark.parametrize("key", ["dialect", "split"])
def test_lines_of_json_have_their_split(tmp_path: Path, key: str) -> None:
    rows = [json.dumps({"text": line, key: name}) for name in "ab" for line in lines_of(name, 9)]
    found = texts_of(written(tmp_path / "lines.jsonl", rows), "", [])
    assert {split: len(own) for split, own in found.tune.items()} == {"a": 6, "b": 6}
    assert set(found.digests()) == {"tune/a", "tune/b", "test/a", "test/b"}


def test_a_line_to_tune_on_that_is_nearly_one_to_test_on_is_refused(tmp_path: Path) -> None:
    own = lines_of("a", 6)
    tune, test = written(tmp_path / "a.txt", own), written(tmp_path / "test.txt", [*lines_of("b", 5), own[3] + "."])
    with pytest.raises(InputError, match="nearly one of the lines to test on") as caught:
        texts_of(tune, {"a": test}, [])
    assert own[3] in str(caught.value)


def test_texts_that_validators_measure_with_are_refused(tmp_path: Path) -> None:
    own = lines_of("a", 6)
    with pytest.raises(InputError, match="validators measure with"):
        texts_of(written(tmp_path / "a.txt", own), "", [line.upper() for line in own])


@pytest.mark.parametrize(
    ("tune", "test", "error", "said"),
    [
        ("", "", ConfigError, "names no text"),
        ("absent.txt", "", InputError, "cannot be read"),
        ("empty.txt", "", InputError, "holds no text"),
        ("bad.jsonl", "", InputError, "line 2 is not an object"),
        ("one.txt", "", ConfigError, "do not divide"),
        ("a.txt", "b.txt", ConfigError, "has no lines of the split 'a'"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, tune: str, test: str, error: type[Exception], said: str) -> None:
    written(tmp_path / "empty.txt", [""])
    written(tmp_path / "bad.jsonl", ['{"text": "x", "dialect": "a"}', '{"text": 1, "dialect": "a"}'])
    written(tmp_path / "one.txt", ["only one"])
    for name in "ab":
        written(tmp_path / f"{name}.txt", lines_of(name, 6))
    given = [str(tmp_path / file) if file else "" for file in (tune, test)]
    with pytest.raises(error, match=said):
        texts_of(given[0], given[1], [])


def test_the_lines_of_the_example_are_apart_and_enough_for_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    example = read("examples/dialects/tune.yaml").tune
    found = texts_of(example.texts, example.test_texts, [])
    assert len(found.tune) == 4
    assert granularity("auto", found.fewest) == "layer"
