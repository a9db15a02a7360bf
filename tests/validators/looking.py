"""A subject to try validators on, and likelihoods by one plain forward pass a text."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from inputs.tiny_models import load
from modelmerger import LabelScores, Subject, ValidationSettings
from modelmerger.testing import subject_of
from modelmerger_validators.arabic_dialects import score_labels


def looked_at(
    tied: SimpleNamespace,
    texts: Mapping[str, Sequence[str]] | None = None,
    prompts: Mapping[str, Sequence[str]] | None = None,
    sources: Sequence[str] = (),
    score: Callable[[Sequence[str]], LabelScores] = score_labels,
    **settings: Any,
) -> tuple[Subject, ValidationSettings]:
    """The tiny model `a`, with others of the tiny models as sources; each of them held."""
    asked = ValidationSettings(**{"max_new_tokens": 12, **settings})
    held = {name: (load(getattr(tied, name))[0], tied.words) for name in ("a", *sources)}
    return subject_of(*held.pop("a"), asked, texts or {}, prompts or {}, held, score), asked


def nats(model: Any, context: Sequence[int], target: Sequence[int]) -> float:
    """−log p of the target given the context, in float64, by a single pass over both."""
    ids = torch.tensor([[*context, *target]])
    with torch.no_grad():
        p = model(ids).logits[0].double().log_softmax(-1)
    return -sum(float(p[len(context) - 1 + i, token]) for i, token in enumerate(target))
