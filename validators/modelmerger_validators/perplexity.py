"""How well a model predicts texts: perplexity per token, and bits per byte.

    perplexity = exp(−(1/N) Σ log p(tᵢ | t₁ … tᵢ₋₁))             over the N tokens of all texts
    bits per byte = −(1/(B·ln 2)) Σ log p(tᵢ | t₁ … tᵢ₋₁)        B: the bytes of the texts in UTF-8

Each text begins with the beginning-of-sequence token, which is not predicted. A text longer than the window is seen
through a window that moves on by the stride; each token is scored once, given what of the window is before it.
Perplexity: Jelinek et al. 1977, https://doi.org/10.1121/1.2016299; sliding window:
https://huggingface.co/docs/transformers/perplexity; bits per byte: Gao et al. 2020, https://arxiv.org/abs/2101.00027,
section 3.1. Perplexity depends on what a token is: bits per byte alone may be compared between models of different
vocabularies.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from modelmerger import Finding, Subject, UnmeasurableError, ValidationSettings, amount, hookimpl

metrics = {"perplexity": "lower", "bits_per_byte": "lower"}


@hookimpl
def wants_validation() -> bool:
    """Always."""
    return True


@hookimpl
def validate_model(subject: Subject, settings: ValidationSettings) -> Iterable[Finding]:
    """Both metrics over all texts, then for each variety that the texts name."""
    if not subject.texts:
        raise UnmeasurableError("there is no text to score. Give 'dataset'")
    model = subject.language
    encoded = {variety: [model.encode(text) for text in texts] for variety, texts in subject.texts.items()}
    flat = [ids for group in encoded.values() for ids in group]
    sums = iter([-float(found.sum()) for found in model.text_log_likelihoods(flat)])
    nats = {variety: sum(next(sums) for _ in group) for variety, group in encoded.items()}
    tokens = {variety: sum(map(len, group)) for variety, group in encoded.items()}
    sizes = {variety: sum(len(text.encode()) for text in texts) for variety, texts in subject.texts.items()}
    window = f"window of {model.window} tokens, stride {model.stride}"
    source = settings.dataset or "the set that is installed"
    source += "" if settings.sample_size == "all" else f", chosen by seed {settings.seed}"
    unknown = model.unknown([token for ids in flat for token in ids])
    warning = f"; the tokenizer lacks the text of {amount(unknown, 'token')}, so both flatter" if unknown else ""
    what = f"{_counted(subject.texts, sum(tokens.values()), sum(sizes.values()))} of {source}; {window}{warning}"
    yield from _findings(sum(nats.values()), sum(tokens.values()), sum(sizes.values()), what)
    for variety, texts in subject.texts.items():
        if variety:
            part = _counted({variety: texts}, tokens[variety], sizes[variety])
            yield from _findings(nats[variety], tokens[variety], sizes[variety], part, variety)


def _findings(nats: float, tokens: int, size: int, evidence: str, variety: str = "") -> Iterable[Finding]:
    if not tokens:
        raise UnmeasurableError(f"the texts{' in ' + variety if variety else ''} have no tokens")
    mean = nats / tokens
    perplexity = math.exp(mean) if mean < 700 else math.inf
    yield Finding(metric="perplexity", value=perplexity, evidence=evidence, unit="per token", label=variety)
    bits = nats / math.log(2) / size
    yield Finding(metric="bits_per_byte", value=bits, evidence=evidence, unit="bits per byte", label=variety)


def _counted(texts: Mapping[str, Sequence[str]], tokens: int, size: int) -> str:
    return f"{amount(sum(map(len, texts.values())), 'text')}, {amount(tokens, 'token')}, {amount(size, 'byte')}"
