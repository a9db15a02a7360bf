"""Tokenizers of models are tried out in a process of its own before they run in this one, and none runs away."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import TEXTS, load, tied
from modelmerger import InputError, MergeConfig, ModelMerger, UnmeasurableError
from modelmerger.validation import tokenizing
from modelmerger.validation.models import Models
from modelmerger.validation.tokenizing import Proof
from modelmerger.values.model_reference import ModelReference

from tests.core.validation.assembled import always_on

__all__ = ["tied"]

RUNAWAY = "a" * 40 + "!"
SPLIT: dict[str, Any] = {
    "type": "Split",
    "pattern": {"Regex": "(a+)+$"},
    "behavior": "Isolated",
    "invert": False,
}
SLOW = SPLIT | {"pattern": {"Regex": "(a+)+[xy]"}}
REPLACE: dict[str, Any] = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}
DOUBLED: dict[str, Any] = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
"""Again and again, it takes all time."""
MORE: dict[str, Any] = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
"""The same takes all memory, and little time until then."""


def changed(directory: Path, target: Path, **parts: Any) -> Path:
    """A copy of a model whose tokenizer.json has other parts."""
    shutil.copytree(directory, target)
    file = target / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | parts))
    return target


def test_what_a_tokenizer_takes_in_time_is_as_before(tied: SimpleNamespace) -> None:
    proof = Proof("a")
    proof.of_file(tied.a, TEXTS)
    proof.of_texts(tied.words, [*TEXTS, "", "مرحبا"])
    proof.of_ids(tied.words, [tied.words.encode(text) for text in TEXTS])
    opened = Models({"a": ModelReference(str(tied.a), "a", "m")}, 2, always_on(), texts=TEXTS).open("a")
    assert opened.language.encode(TEXTS[0]) == tied.words.encode(TEXTS[0], add_special_tokens=False)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tokenizer may take that does not run away; what does is stopped the sooner for it."""
    monkeypatch.setattr(tokenizing, "SECONDS", 1)
    monkeypatch.setattr(tokenizing, "MEMORY", 1 << 28)


@pytest.mark.usefixtures("little")
def test_a_sound_tokenizer_needs_less_than_these_tests_allow(tied: SimpleNamespace) -> None:
    Proof("a").of_file(tied.a, TEXTS)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize(
    ("parts", "text", "reason", "held"),
    [
        ({"pre_tokenizer": SPLIT}, RUNAWAY, "retry-limit", False),
        ({"pre_tokenizer": SPLIT}, RUNAWAY, "retry-limit", True),
        ({"normalizer": REPLACE}, RUNAWAY, "retry-limit", False),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [DOUBLED] * 60}},
            "a",
            "it takes more than 1 s or 256 MiB",
            False,
        ),
        ({"pre_tokenizer": SLOW}, ("a" * 20 + "!") * 2000, "(retry-limit|it takes more than 1 s or 256 MiB)", False),
    ],
    ids=["a pattern", "a pattern in memory", "a replacement", "letters that double", "a little at each letter"],
)
def test_a_tokenizer_that_runs_away_is_stopped(
    tied: SimpleNamespace,
    tmp_path: Path,
    parts: dict[str, Any],
    text: str,
    reason: str,
    held: bool,
) -> None:
    """B24"""
    from transformers import PreTrainedTokenizerFast

    directory = changed(tied.a, tmp_path / "a", **parts)
    place: Any = ModelReference(str(directory), "a", "m")
    if held:
        place = load(tied.a)[0], PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    with pytest.raises(UnmeasurableError, match=f"the tokenizer of a fails: .*{reason}"):
        Models({"a": place}, 2, always_on(), texts=[text]).open("a")


@pytest.mark.usefixtures("little")
def test_a_decoder_that_runs_away_is_stopped(tied: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """B24"""
    from tokenizers import decoders

    opened = Models({"a": ModelReference(str(tied.a), "a", "m")}, 2, always_on()).open("a")
    opened.tokenizer.backend_tokenizer.decoder = decoders.Sequence([decoders.Replace("a", "a" * 1000)] * 60)
    special = opened.tokenizer.all_special_ids
    word = next(i for text, i in sorted(opened.tokenizer.get_vocab().items()) if "a" in text and i not in special)
    monkeypatch.setattr("modelmerger.validation.language_model.continued", lambda *_: [[word]])
    with pytest.raises(UnmeasurableError, match="the tokenizer of a fails: it takes more than"):
        opened.language.answers([""], 1, 0, chat_template=False)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("output", [True, False], ids=["written", "in memory"])
def test_whoever_asks_a_merge_for_its_tokenizer_gets_one_that_was_tried_out(
    tied: SimpleNamespace, tmp_path: Path, output: bool
) -> None:
    """B24. The merge itself and its model are as ever, and what is measured with the tokenizer has no value."""
    directory = changed(tied.a, tmp_path / "a", normalizer={"type": "Sequence", "normalizers": [MORE] * 60})
    where = {"output_path": str(tmp_path / "merged")} if output else {}
    validation = {"test_prompts": ["x"], "sample_size": 1, "max_new_tokens": 1}
    merger = ModelMerger(MergeConfig("weighted", [{"path": str(directory)}], **where, validation=validation))

    model = merger.merge()

    assert merger.validation_report is not None
    said = {finding.evidence for finding in merger.validation_report.findings}
    assert any("the tokenizer of merged fails: it takes more than 1 s or 256 MiB" in line for line in said), said
    with pytest.raises(
        InputError, match="has a tokenizer that cannot be loaded: the tokenizer of merged fails: it takes"
    ):
        print(merger.tokenizer)
    del model
