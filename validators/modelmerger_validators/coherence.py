"""Whether what a model writes follows from what it was asked, and how much it repeats itself.

    coherence = (1/N) Σ [log p(cᵢ | prompt, c₁ … cᵢ₋₁) − log p(cᵢ | c₁ … cᵢ₋₁)]   over the N tokens of all continuations

the gain in log-likelihood per token, in nats, that the prompt gives to the model's own continuation c: the pointwise
mutual information of prompt and continuation, by the model itself. Li et al. 2016, https://arxiv.org/abs/1510.03055. 0:
the prompt makes no difference. A model is a mild judge of itself: compare with its sources, and on the same prompts.

    repetition = mean over continuations of 1 − |different 4-grams| / |4-grams|          of tokens

Welleck et al. 2019, https://arxiv.org/abs/1908.04319 (seq-rep-4). Continuations of fewer than four tokens have none.
"""

from collections.abc import Iterable, Sequence

from modelmerger import Answer, Finding, Subject, UnmeasurableError, amount, hookimpl

metrics = {"coherence": "higher", "repetition": "lower"}


@hookimpl
def validate_model(subject: Subject) -> Iterable[Finding]:
    """Both metrics over the answers to all prompts."""
    answers = [answer for group in subject.answers().values() for answer in group]
    said = [answer for answer in answers if answer.ids]
    if not answers:
        raise UnmeasurableError("there is no prompt. Give 'test_prompts'")
    tokens = sum(len(answer.ids) for answer in said)
    what = f"{amount(tokens, 'token')} of {amount(len(said), 'continuation')} to {amount(len(answers), 'prompt')}"
    yield _gain(subject, said, tokens, what)
    rates = [rate for answer in said if (rate := repetition(answer.ids)) is not None]
    mean = sum(rates) / len(rates) if rates else None
    yield Finding(
        metric="repetition",
        value=mean,
        evidence=f"mean over {amount(len(rates), 'continuation')} of four tokens or more",
        unit="share of 4-grams",
    )


def repetition(ids: Sequence[int], n: int = 4) -> float | None:
    """Share of n-grams that stand in the sequence before; None where it has no n-gram."""
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def _gain(subject: Subject, said: Sequence[Answer], tokens: int, what: str) -> Finding:
    unit = "nats per token"
    if not said:
        return Finding(metric="coherence", value=None, evidence=f"every continuation is empty: {what}", unit=unit)
    model = subject.language
    given = model.log_likelihoods([(answer.prompt_ids, answer.ids) for answer in said])
    alone = model.log_likelihoods([(model.start, answer.ids) for answer in said])
    gain = sum(float(a.sum() - b.sum()) for a, b in zip(given, alone, strict=True))
    return Finding(metric="coherence", value=gain / tokens, evidence=what, unit=unit)
