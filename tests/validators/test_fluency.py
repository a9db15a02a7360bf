"""Fluency under the sources against plain forward passes; shares of letters and characters against counts by hand."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import TEXTS, load, tied
from modelmerger import Answer, Finding, UnmeasurableError
from modelmerger.testing import subject_of
from modelmerger_validators.fluency import validate_model

from tests.validators.looking import looked_at, nats

__all__ = ["tied"]
pytestmark = pytest.mark.usefixtures("tokenizers_here")
PROMPTS = {"egyptian": TEXTS[:2], "gulf": TEXTS[2:3]}


def found(subject: Any) -> dict[str, Finding]:
    return {finding.metric: finding for finding in validate_model(subject)}


def answering(*texts: str) -> SimpleNamespace:
    answers = [Answer(prompt="x", prompt_ids=(1,), ids=(2,) * len(text), text=text) for text in texts]
    return SimpleNamespace(answers=lambda: {"": answers}, sources=())


def shares(*texts: str) -> tuple[float | None, float | None]:
    findings = validate_model(answering(*texts))
    return next(findings).value, next(findings).value  # type: ignore[call-overload]  # a generator


def test_fluency_is_the_mean_perplexity_of_the_answers_under_the_sources(tied: SimpleNamespace) -> None:
    subject, _ = looked_at(tied, prompts=PROMPTS, sources=("b", "base"), chat_template=False)
    fluency = found(subject)["fluency"]
    answers = [answer for group in subject.answers().values() for answer in group if answer.text.strip()]
    assert answers
    means = []
    for name in ("b", "base"):
        model, _ = load(getattr(tied, name))
        pairs = [
            (
                tied.words.encode(f"<s>{a.prompt}", add_special_tokens=False),
                tied.words.encode(a.text, add_special_tokens=False),
            )
            for a in answers
        ]
        means.append(sum(nats(model, *pair) for pair in pairs) / sum(len(said) for _, said in pairs))
    assert fluency.value == pytest.approx(math.exp(sum(means) / 2), rel=1e-4)
    assert fluency.evidence.startswith(f"{len(answers)} continuation")
    assert f"under b {math.exp(means[0]):.4g}, base {math.exp(means[1]):.4g}" in fluency.evidence


def test_without_sources_it_says_so_and_the_shares_are_measured_all_the_same(tied: SimpleNamespace) -> None:
    findings = validate_model(looked_at(tied, prompts=PROMPTS)[0])
    assert [next(findings).metric for _ in range(2)] == ["arabic_letters", "broken_characters"]  # type: ignore[call-overload]  # a generator
    with pytest.raises(UnmeasurableError, match="no source models are given"):
        next(findings)  # type: ignore[call-overload]  # a generator


def test_a_source_that_cannot_be_loaded_is_left_out_and_named(tied: SimpleNamespace) -> None:
    sound, settings = looked_at(tied, prompts=PROMPTS, sources=("b",))
    without = found(sound)["fluency"].value
    sources = {"b": (load(tied.b)[0], tied.words), "base": (load(tied.base)[0], None)}
    subject = subject_of(sound.model, tied.words, settings, prompts=PROMPTS, sources=sources)
    fluency = found(subject)["fluency"]
    assert fluency.value == pytest.approx(without)
    assert fluency.evidence.endswith("; left out: the model base has no tokenizer")


@pytest.mark.parametrize(
    ("texts", "arabic", "broken"),
    [
        (["مرحبا"], 1, 0),
        (["مرحبا hello"], 0.5, 0),
        (["سلام 123 !؟"], 1, 0),
        (["123"], None, 0),
        (["ab\ufffdcd"], 0, 0.2),
        (["abcd\ufffd"], 0, 0),
        (["a\x00\nb"], 0, 0.25),
        (["ﷺ"], 1, 0),
    ],
)
def test_shares_of_arabic_letters_and_of_broken_characters(
    texts: list[str], arabic: float | None, broken: float
) -> None:
    assert shares(*texts) == (arabic, broken)
