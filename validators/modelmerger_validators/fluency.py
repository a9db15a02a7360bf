"""How natural what a model writes is to the models it was made of, and whether it is sound Arabic text at all.

    fluency = exp((1/S) Σₛ −(1/Nₛ) Σ log pₛ(cᵢ | prompt, c₁ … cᵢ₋₁))

the perplexity of the model's continuations c, given their prompts as plain text, under each of the S other source
models, by each one's own tokens (Nₛ of them), of prompt and continuation half a window each; the mean over the models
is that of the logarithms. Text sampled from one model and scored by others is generative perplexity: Dathathri et al.
2020, https://arxiv.org/abs/1912.02164. Low for dull text too: read it beside the repetition rate of `coherence`.

    arabic_letters = |letters of the Arabic script| / |letters|
    broken_characters = |U+FFFD, controls, unassigned| / |characters|

over all continuations. A continuation that ends in the middle of a character because it is cut off is not broken for
that.
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from modelmerger import Answer, Finding, Subject, UnmeasurableError, amount, hookimpl

metrics = {"fluency": "lower", "arabic_letters": "higher", "broken_characters": "lower"}
REPLACEMENT = "\ufffd"
BROKEN = ("Cc", "Cn", "Co", "Cs")


@hookimpl
def validate_model(subject: Subject) -> Iterable[Finding]:
    """The two shares from the answers' text, then the perplexity under the sources."""
    answers = [answer for group in subject.answers().values() for answer in group]
    if not answers:
        raise UnmeasurableError("there is no prompt. Give 'test_prompts'")
    texts = [answer.text.removesuffix(REPLACEMENT) for answer in answers]
    yield _arabic(texts)
    yield _broken(texts)
    yield _fluency(subject, [answer for answer in answers if answer.text.strip()])


def _arabic(texts: Sequence[str]) -> Finding:
    letters = [c for text in texts for c in text if unicodedata.category(c)[0] == "L"]
    arabic = sum(unicodedata.name(c, "").startswith("ARABIC ") for c in letters)
    return Finding(
        metric="arabic_letters",
        value=arabic / len(letters) if letters else None,
        evidence=f"{amount(len(letters), 'letter')} in {amount(len(texts), 'continuation')}",
        unit="share of letters",
    )


def _broken(texts: Sequence[str]) -> Finding:
    characters = [c for text in texts for c in text]
    broken = sum(c == REPLACEMENT or (unicodedata.category(c) in BROKEN and c not in "\t\n\r") for c in characters)
    return Finding(
        metric="broken_characters",
        value=broken / len(characters) if characters else None,
        evidence=f"{amount(len(characters), 'character')} in {amount(len(texts), 'continuation')}",
        unit="share of characters",
    )


def _fluency(subject: Subject, answers: Sequence[Answer]) -> Finding:
    if not subject.sources:
        raise UnmeasurableError(
            "no source models are given to read the continuations. Give them with the config, or --against"
        )
    if not answers:
        raise UnmeasurableError("every continuation is empty")
    means, failures = {}, []
    for name in subject.sources:
        try:
            means[name] = _mean(subject, name, answers)
        except UnmeasurableError as error:
            failures.append(error.problems[0].message)
    if not means:
        raise UnmeasurableError(f"no source model can read the continuations: {failures[0]}")
    return Finding(
        metric="fluency",
        value=_exp(sum(means.values()) / len(means)),
        evidence=_described(means, answers) + "".join(f"; left out: {failure}" for failure in failures),
        unit="per token",
    )


def _mean(subject: Subject, name: str, answers: Sequence[Answer]) -> float:
    """Nats per token of the answers under a source model, by its own tokens."""
    model = subject.open(name).language
    pairs = [([*model.start, *model.encode(a.prompt)], model.encode(a.text)) for a in answers]
    room = model.window // 2
    cut = [(prompt[-room:], said[:room]) for prompt, said in pairs if said]
    if not cut:
        raise UnmeasurableError(f"the tokenizer of {name} makes nothing of the continuations")
    found = model.log_likelihoods(cut)
    return -sum(float(row.sum()) for row in found) / sum(len(said) for _, said in cut)


def _exp(mean: float) -> float:
    return math.exp(mean) if mean < 700 else math.inf


def _described(means: Mapping[str, float], answers: Sequence[Answer]) -> str:
    each = ", ".join(f"{name} {_exp(mean):.4g}" for name, mean in means.items())
    return f"{amount(len(answers), 'continuation')} under {each}"
