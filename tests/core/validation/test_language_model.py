"""Log-likelihoods against one plain forward pass a token, whatever the batch size; answers that only seed and place decide."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from inputs.tiny_models import TEXTS, load, tied
from modelmerger import UnmeasurableError
from modelmerger.validation.language_model import CausalLanguageModel

__all__ = ["tied"]
pytestmark = pytest.mark.usefixtures("tokenizers_here")

LONG = " ".join(TEXTS * 8)


def opened(tied: SimpleNamespace, batch_size: int = 7) -> CausalLanguageModel:
    return CausalLanguageModel("a", load(tied.a)[0], tied.words, batch_size)


def plain(model: Any, context: list[int], target: list[int]) -> list[float]:
    """Each token from a forward pass of its own over what is before it, in float64."""
    found = []
    for i, token in enumerate(target):
        with torch.no_grad():
            logits = model(torch.tensor([context + target[:i]])).logits[0, -1].double()
        found.append(float(logits[token] - logits.logsumexp(0)))
    return found


@pytest.mark.parametrize("batch_size", [1, 7])
def test_log_likelihoods_are_those_of_single_forward_passes(tied: SimpleNamespace, batch_size: int) -> None:
    words = opened(tied, batch_size)
    texts = [words.encode(text) for text in TEXTS]
    for ids, found in zip(texts, words.text_log_likelihoods(texts), strict=True):
        assert found.tolist() == pytest.approx(plain(words.model, [tied.words.bos_token_id], ids), abs=1e-5)


def test_padding_does_not_change_scores(tied: SimpleNamespace) -> None:
    ids = [opened(tied).encode(text) for text in [*TEXTS, LONG]]
    one, seven = (opened(tied, size).text_log_likelihoods(ids) for size in (1, 7))
    torch.testing.assert_close(torch.cat(one), torch.cat(seven), rtol=0, atol=1e-5)


def test_every_token_of_a_text_longer_than_the_window_is_scored_once_with_half_a_window_before_it(
    tied: SimpleNamespace,
) -> None:
    words = opened(tied)
    ids = words.encode(LONG)
    assert (words.window, words.stride) == (64, 32)
    assert len(ids) > 3 * words.window
    sequence = [tied.words.bos_token_id, *ids]
    expected = plain(words.model, sequence[:1], ids[:63])
    for begin in range(64, len(sequence), 32):
        end = min(begin + 32, len(sequence))
        expected += plain(words.model, sequence[max(0, end - 64) : begin], sequence[begin:end])
    (found,) = words.text_log_likelihoods([ids])
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_an_empty_text_has_no_tokens(tied: SimpleNamespace) -> None:
    empty, full = opened(tied).text_log_likelihoods([[], [5, 6]])
    assert (empty.shape, full.shape) == ((0,), (2,))


def test_answers_depend_on_the_seed_and_not_on_the_batch(tied: SimpleNamespace) -> None:
    one, seven = (opened(tied, size).answers(TEXTS, 12, 3, False) for size in (1, 7))
    assert [answer.ids for answer in one] == [answer.ids for answer in seven]
    assert one == opened(tied, 1).answers(TEXTS, 12, 3, False)
    assert [a.ids for a in one] != [a.ids for a in opened(tied).answers(TEXTS, 12, 4, False)]
    assert max(len(answer.ids) for answer in one) == 12
    assert len({answer.ids for answer in opened(tied).answers([TEXTS[0]] * 4, 12, 3, False)}) > 1


def test_the_chat_template_is_around_the_prompt_where_it_is_asked_for(tied: SimpleNamespace) -> None:
    words = opened(tied)
    (raw,), (chat,) = (words.answers([TEXTS[0]], 2, 0, templated) for templated in (False, True))
    assert raw.prompt_ids == (tied.words.bos_token_id, *words.encode(TEXTS[0]))
    assert chat.prompt_ids == tuple(words.encode(f"<s>{TEXTS[0]}</s>"))


def test_answers_follow_the_nucleus_at_the_temperature(tied: SimpleNamespace) -> None:
    """First tokens of many answers against the distribution that the docstring promises."""
    words = opened(tied, 100)
    asked = [tied.words.bos_token_id, *words.encode(TEXTS[0])]
    with torch.no_grad():
        scores = words.model(torch.tensor([asked])).logits[0, -1].double()
    scores[tied.words.eos_token_id] = -torch.inf  # barred from the first place
    p = (scores / 0.7).softmax(-1)
    ordered, order = p.sort(descending=True)
    inside = order[(ordered.cumsum(0) - ordered) < 0.9]
    expected = torch.zeros_like(p)
    expected[inside] = p[inside] / p[inside].sum()
    drawn = [answer.ids[0] for answer in words.answers([TEXTS[0]] * 400, 1, 0, False)]
    share = torch.bincount(torch.tensor(drawn), minlength=len(p)) / len(drawn)
    assert float((share - expected).abs().sum()) < 0.4
    assert set(drawn) <= set(inside.tolist())


def test_what_is_no_causal_model_or_has_no_tokenizer_says_so(tied: SimpleNamespace) -> None:
    with pytest.raises(UnmeasurableError, match="Linear is not a model that predicts the next token"):
        CausalLanguageModel("x", torch.nn.Linear(2, 2), tied.words, 1)
    with pytest.raises(UnmeasurableError, match="the model x has no tokenizer"):
        CausalLanguageModel("x", load(tied.a)[0], None, 1)
