"""What is measured of tokenizers whose vocabularies differ, beside tokenizers asked one line at a time."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from modelmerger import MergeConfig, merge
from modelmerger_plugins.tokenizer.code_lines import CODE
from modelmerger_validators.arabic_texts import provide_texts
from tokenizers import Tokenizer

from tests.plugins.tokenizer.union.test_merges import FIRST, SECOND, config_of, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "a", 1, FIRST, 408)
    write(tmp_path / "b", 2, SECOND, 456)
    return tmp_path


def per_word(path: Path, lines: Sequence[str]) -> float:
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokens = sum(len(tokenizer.encode(line, add_special_tokens=False).tokens) for line in lines)
    return tokens / len(" ".join(lines).split())


def test_a_union_is_measured_beside_the_tokenizers_that_it_is_made_of(folder: Path) -> None:
    report = merge(MergeConfig(**config_of(folder)))

    texts = {"code": CODE, **(provide_texts("scoring") or {})}
    assert {"egyptian", "english"} <= texts.keys()
    counts = {label: len(lines) for label, lines in texts.items()}
    words = dict(report.figures["tokens per word"])
    assert words.pop("lines") == counts
    assert words.keys() == {"a", "b", "merged model"}
    for name, cells in words.items():
        path = folder / ("merged" if name == "merged model" else name)
        assert cells == {label: pytest.approx(per_word(path, lines), abs=1e-4) for label, lines in texts.items()}
    assert words["merged model"]["english"] == words["a"]["english"] < words["b"]["english"]
    assert words["merged model"]["egyptian"] == words["b"]["egyptian"] < words["a"]["egyptian"]

    same = report.figures["lines cut as by 'a'"]["merged model"]
    assert (same["english"], same["code"], same["egyptian"]) == (counts["english"], counts["code"], 0)
    assert report.figures["lines that come back as they were"]["merged model"] == counts
    imported = report.figures["imported tokens"]["merged model"]
    first, union = (
        json.loads((folder / name / "tokenizer.json").read_text())["model"]["vocab"] for name in ("a", "merged")
    )
    assert imported["tokens"] == len(union) - len(first) - len(FIRST["added_tokens"])
    assert 0 < imported["used in these lines"] == round(imported["share used"] * imported["tokens"])
    assert imported["of these, cut to themselves"] == imported["whole text"] > 150

    assert json.loads((folder / "merged/modelmerger.json").read_text())["figures"] == report.figures
    (said,) = [note for note in report.notes if note.message.startswith("a word of ")]
    assert said.severity == "note"


def test_of_one_models_vocabulary_nothing_was_imported(folder: Path) -> None:
    report = merge(MergeConfig(**config_of(folder, tokenizer_source="b")))

    assert list(report.figures) == ["tokens per word", "lines that come back as they were"]
    words = report.figures["tokens per word"]
    assert words["merged model"] == words["b"] != words["a"]


def test_equal_vocabularies_are_not_measured(folder: Path) -> None:
    write(folder / "b", 2, FIRST, 408)

    report = merge(MergeConfig(**config_of(folder)))

    assert report.figures == {}
    assert "figures" not in json.loads((folder / "merged/modelmerger.json").read_text())


def test_a_tokenizer_that_cannot_be_built_leaves_a_note(folder: Path) -> None:
    broken = json.loads((folder / "b/tokenizer.json").read_text())
    broken["pre_tokenizer"] = {"type": "Nonsense"}
    (folder / "b/tokenizer.json").write_text(json.dumps(broken))

    report = merge(MergeConfig(**config_of(folder, tokenizer_source="a")))

    assert report.figures == {}
    assert any("it is not known into how many tokens words are cut" in note.message for note in report.notes)
