"""Perplexity and bits per byte against single forward passes."""

import math
from types import SimpleNamespace

import pytest
import torch
from inputs.tiny_models import TEXTS, load, tied
from modelmerger import Finding, UnmeasurableError
from modelmerger_validators.perplexity import metrics, validate_model

from tests.validators.looking import looked_at, nats

__all__ = ["tied"]
pytestmark = pytest.mark.usefixtures("tokenizers_here")
BY_VARIETY = {"egyptian": TEXTS[:2], "gulf": TEXTS[2:3]}


def found(findings: list[Finding]) -> dict[tuple[str, str], float | None]:
    return {(finding.metric, finding.label): finding.value for finding in findings}


def test_both_metrics_are_those_of_plain_forward_passes_over_all_and_by_variety(tied: SimpleNamespace) -> None:
    values = found(list(validate_model(*looked_at(tied, texts=BY_VARIETY))))
    model, _ = load(tied.a)
    parts = {"": [text for texts in BY_VARIETY.values() for text in texts], **BY_VARIETY}
    assert values.keys() == {(metric, part) for metric in metrics for part in parts}
    for part, texts in parts.items():
        ids = [tied.words.encode(text, add_special_tokens=False) for text in texts]
        loss = sum(nats(model, [tied.words.bos_token_id], row) for row in ids)
        assert values["perplexity", part] == pytest.approx(math.exp(loss / sum(map(len, ids))), rel=1e-5)
        size = sum(len(text.encode("utf-8")) for text in texts)
        assert values["bits_per_byte", part] == pytest.approx(loss / math.log(2) / size, rel=1e-5)


def test_the_batch_size_changes_nothing_beyond_float_noise_and_a_second_run_nothing(tied: SimpleNamespace) -> None:
    one, again, seven = (
        found(list(validate_model(*looked_at(tied, texts=BY_VARIETY, test_batch_size=size)))) for size in (1, 1, 7)
    )
    assert one == again
    assert one == pytest.approx(seven, rel=1e-5)


def test_it_says_on_what_and_how_it_was_measured(tied: SimpleNamespace) -> None:
    first, *_ = validate_model(*looked_at(tied, texts={"": TEXTS[:2]}, dataset="texts.txt"))
    tokens = sum(len(tied.words.encode(text, add_special_tokens=False)) for text in TEXTS[:2])
    size = sum(len(text.encode()) for text in TEXTS[:2])
    assert (
        first.evidence
        == f"2 texts, {tokens} tokens, {size} bytes of texts.txt, chosen by seed 0; window of 64 tokens, stride 32"
    )
    assert first.unit == "per token"


def test_text_that_the_tokenizer_cannot_say_is_said(tied: SimpleNamespace) -> None:
    first, *_ = validate_model(*looked_at(tied, texts={"": ["漢字"]}))
    assert "the tokenizer lacks the text of" in first.evidence


@pytest.mark.parametrize(("texts", "reason"), [({}, "there is no text to score"), ({"": [""]}, "have no tokens")])
def test_without_text_there_is_no_number(tied: SimpleNamespace, texts: dict[str, list[str]], reason: str) -> None:
    with pytest.raises(UnmeasurableError, match=reason):
        list(validate_model(*looked_at(tied, texts=texts)))


def test_a_perplexity_beyond_all_floats_is_infinite_and_no_crash(tied: SimpleNamespace) -> None:
    subject, settings = looked_at(tied, texts={"": TEXTS[:1]})
    with torch.no_grad():
        subject.model.get_output_embeddings().weight.mul_(1e6)  # logits are this times hidden states of norm 4
    assert next(iter(validate_model(subject, settings))).value == math.inf
