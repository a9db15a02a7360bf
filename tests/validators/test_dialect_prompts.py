"""The share of answers in the dialect of their prompts, and the confusion, against counts by hand."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import pytest
from modelmerger import Answer, LabelScores, UnmeasurableError
from modelmerger_validators.dialect_prompts import validate_model

LABELS = ("egyptian", "gulf")


def score(texts: Sequence[str]) -> LabelScores:
    """A text is in the dialect whose first letter it begins with."""
    rows = [{"e": (0.9, 0.1), "g": (0.1, 0.9)}.get(text[:1]) for text in texts]
    return LabelScores(scorer="first letter", stated="right on 2 of 2", labels=LABELS, rows=rows)


def subject(answered: Mapping[str, Mapping[str, str]]) -> SimpleNamespace:
    answers = {
        dialect: [Answer(prompt=prompt, prompt_ids=(1,), ids=(2,), text=text) for prompt, text in group.items()]
        for dialect, group in answered.items()
    }
    return SimpleNamespace(answers=lambda: answers, score_labels=score)


def test_matches_and_confusion_are_counted() -> None:
    asked = {"egyptian": {"1": "e", "2": "g", "3": "?"}, "gulf": {"4": "gg"}}
    overall, egyptian, gulf = validate_model(subject(asked))
    assert (overall.value, overall.label) == (2 / 4, "")
    assert overall.evidence == "4 answers; by first letter: right on 2 of 2"
    assert (egyptian.value, egyptian.label) == (1 / 3, "egyptian")
    assert egyptian.evidence == "answered in egyptian 1, gulf 1, no Arabic 1"
    assert (gulf.value, gulf.label, gulf.evidence) == (1, "gulf", "answered in gulf 1")


def test_the_variety_of_a_prompt_that_none_is_given_for_is_the_scorers_guess() -> None:
    overall, first, second = validate_model(subject({"": {"e?": "e", "g?": "e"}}))
    assert overall.value == 1 / 2
    assert "; the variety of 2 prompts is the scorer's guess;" in overall.evidence
    assert [(f.label, f.value) for f in (first, second)] == [("egyptian", 1), ("gulf", 0)]


def test_a_variety_that_the_scorer_does_not_know_has_no_number() -> None:
    overall, sudanese, gulf = validate_model(subject({"sudanese": {"1": "g"}, "gulf": {"2": "g"}}))
    assert (overall.value, gulf.value, sudanese.value) == (1, 1, None)
    assert sudanese.evidence == "first letter knows egyptian, gulf, and no sudanese"


def test_without_prompts_there_is_no_number() -> None:
    with pytest.raises(UnmeasurableError, match="there is no prompt"):
        list(validate_model(subject({})))
