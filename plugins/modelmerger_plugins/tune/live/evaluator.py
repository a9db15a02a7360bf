"""Losses of whole models in memory."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modelmerger_plugins.tune.evaluating import first_token
from modelmerger_plugins.tune.gradient.losses import batch_of
from modelmerger_plugins.tune.gradient.skeleton import lines_together
from modelmerger_plugins.tune.live.merging import InMemory
from modelmerger_plugins.tune.live.stretching import Stretched
from modelmerger_plugins.tune.measured import Lines, Nats
from modelmerger_plugins.tune.opened import Opened


class Live:
    """Measures lines under the merged model as transformers runs it."""

    def __init__(self, opened: Opened) -> None:
        self._models = InMemory(opened)
        self._first = first_token(opened)
        self._most = opened.read.tune.search.batch_tokens
        self._base = len(opened.models) - 1
        self._stretched: tuple[Sequence[float], Stretched] | None = None

    def begun(self, vector: Sequence[float]) -> Callable[[Lines], Nats]:
        """The merge at these numbers, as what gives the nats of each line."""
        self._stretched = None
        model = self._models.at(vector)
        return lambda lines: nats_of(model, lines, self._first, self._most)

    def nats(self, lines: Lines, vector: Sequence[float]) -> Nats:
        """The nats of each line under the merge at these numbers."""
        return self.begun(vector)(lines)

    def stretched_nats(self, lines: Lines, vector: Sequence[float], factor: float) -> Nats:
        """The same where all that the merge changes of the base model is multiplied by a factor."""
        if self._stretched is None or self._stretched[0] != vector:
            self._stretched = vector, Stretched(self._models.at(vector), self._models.source(self._base))
        return nats_of(self._stretched[1].by(factor), lines, self._first, self._most)

    def source_nats(self, lines: Lines, model: int) -> Nats:
        """The nats of each line under a model that is merged."""
        return nats_of(self._models.source(model), lines, self._first, self._most)


def nats_of(model: Any, lines: Lines, first: int, most: int) -> Nats:
    """The nats of each line under a causal language model of transformers, in its own dtype.

    first: the token that a text begins with. most: tokens at a time, with padding.
    """
    import torch

    found = {}
    for split, own in lines.tokens.items():
        nats = np.zeros(len(own))
        for group in lines_together([len(line) + 1 for line in own], most):
            tokens, attention, scored = (one.to(model.device) for one in batch_of([own[i] for i in group], first))
            with torch.inference_mode():
                logits = model(input_ids=tokens, attention_mask=attention).logits[:, :-1].float()
            chosen = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
            nats[group] = -(chosen * scored[:, 1:]).double().sum(1).cpu().numpy()
        found[split] = nats
    return found
