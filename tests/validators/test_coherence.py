"""Coherence and repetition against plain computations."""

from types import SimpleNamespace

import pytest
from inputs.tiny_models import TEXTS, load, tied
from modelmerger import UnmeasurableError
from modelmerger_validators.coherence import repetition, validate_model

from tests.validators.looking import looked_at, nats

__all__ = ["tied"]
pytestmark = pytest.mark.usefixtures("tokenizers_here")
PROMPTS = {"egyptian": TEXTS[:2], "gulf": TEXTS[2:3]}


def test_coherence_is_the_gain_that_the_prompt_brings(tied: SimpleNamespace) -> None:
    subject, _ = looked_at(tied, prompts=PROMPTS, chat_template=False)
    gain, repeated = validate_model(subject)
    model, _ = load(tied.a)
    answers = [answer for group in subject.answers().values() for answer in group]
    start = [tied.words.bos_token_id]
    total = sum(
        nats(model, start, a.ids) - nats(model, [*start, *tied.words.encode(a.prompt, add_special_tokens=False)], a.ids)
        for a in answers
    )
    tokens = sum(len(answer.ids) for answer in answers)
    assert gain.value == pytest.approx(total / tokens, rel=1e-4, abs=1e-6)
    assert gain.evidence == f"{tokens} tokens of 3 continuations to 3 prompts"
    rates = []
    for answer in answers:
        grams = [answer.ids[i : i + 4] for i in range(len(answer.ids) - 3)]
        if grams:
            rates.append(sum(gram in grams[:i] for i, gram in enumerate(grams)) / len(grams))
    assert repeated.value == pytest.approx(sum(rates) / len(rates))


def test_the_gain_stands_on_the_prompt_as_the_model_saw_it(tied: SimpleNamespace) -> None:
    subject, _ = looked_at(tied, prompts=PROMPTS, chat_template=True)
    gain, _ = validate_model(subject)
    model, _ = load(tied.a)
    answers = [answer for group in subject.answers().values() for answer in group]
    total = sum(
        nats(model, [tied.words.bos_token_id], a.ids)
        - nats(model, tied.words.encode(f"<s>{a.prompt}</s>", add_special_tokens=False), a.ids)
        for a in answers
    )
    assert gain.value == pytest.approx(total / sum(len(answer.ids) for answer in answers), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("ids", "rate"), [([1, 2, 3], None), ([1, 2, 3, 4], 0), ([7] * 8, 0.8), ([1, 2, 3, 4, 1, 2, 3, 4], 0.2)]
)
def test_repetition_is_the_share_of_four_grams_that_stand_before(ids: list[int], rate: float | None) -> None:
    assert repetition(ids) == (rate if rate is None else pytest.approx(rate))


def test_without_prompts_there_is_no_number(tied: SimpleNamespace) -> None:
    with pytest.raises(UnmeasurableError, match="there is no prompt"):
        list(validate_model(looked_at(tied)[0]))
