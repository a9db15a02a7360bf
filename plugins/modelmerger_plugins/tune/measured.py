"""Losses of models on lines, as they are measured, and what an objective and constraints make of them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from attrs import field, frozen

from modelmerger_plugins.tune.constraints import MERGED, Constraint
from modelmerger_plugins.tune.section import Objective

if TYPE_CHECKING:
    import numpy as np

SHARP = 0.005
"""How near to the worst a split must be to count in the gradient: a difference of this much divides its share by e."""
BREACH = 10.0
"""What a constraint that does not hold costs, for each unit of its excess."""


@frozen(eq=False)
class Lines:
    """Encoded lines of some splits, and how much text they are."""

    tokens: Mapping[str, Sequence[Sequence[int]]] = field(repr=False)
    """Split → line → its tokens, that before the first left out."""
    bytes: Mapping[str, int]
    """UTF-8 bytes of each split."""

    @property
    def splits(self) -> list[str]:
        """The names of the splits."""
        return list(self.tokens)

    def counts(self, split: str) -> "np.ndarray":
        """Tokens of each line: (lines,)."""
        import numpy as np

        return np.array([len(line) for line in self.tokens[split]])


Nats = Mapping[str, "np.ndarray"]
"""Split → the nats of each line: (lines,), float64."""


def per_token(nats: Nats, lines: Lines) -> dict[str, float]:
    """The loss of each split: nats a token."""
    return {split: float(found.sum() / lines.counts(split).sum()) for split, found in nats.items()}


@frozen(eq=False)
class Goal:
    """What is made small, as a function of the losses of the splits."""

    objective: Objective
    """As the config has it."""
    constraints: Sequence[Constraint]
    """What must hold."""
    sources: Mapping[str, Mapping[str, float]]
    """Model → split → nats a token, on the same lines."""
    lines: Lines
    """The lines."""

    def best(self, split: str) -> float:
        """The loss of the best source of a split."""
        return min(losses[split] for losses in self.sources.values())

    def gaps(self, losses: Mapping[str, Any]) -> dict[str, Any]:
        """How much worse each split is than under its best source, as a share."""
        return {split: loss / self.best(split) - 1 for split, loss in losses.items()}

    def terms(self, losses: Mapping[str, Any]) -> dict[str, Any]:
        """What each split counts with: its gap, or its loss in the unit of the objective."""
        if self.objective.relative:
            return self.gaps(losses)
        bits = self.objective.metric == "bits_per_byte"
        return {split: loss * (self._bits(split) if bits else 1.0) for split, loss in losses.items()}

    def value(self, losses: Mapping[str, float]) -> float:
        """The objective."""
        terms = self.terms(losses)
        if self.objective.take == "worst":
            return float(max(terms.values()))
        return float(sum(weight * terms[split] for split, weight in self._weights().items()))

    def excess(self, losses: Mapping[str, float]) -> float:
        """By how much the constraints do not hold, added up."""
        known = self._known(losses) if self.constraints else {}
        return float(sum(max(0.0, one.excess(known)) for one in self.constraints))

    def slopes(self, losses: Mapping[str, float]) -> dict[str, float]:
        """What a unit of each split's loss costs: of the objective, where several are near the worst in shares."""
        import torch

        given = {split: torch.tensor(loss, dtype=torch.float64, requires_grad=True) for split, loss in losses.items()}
        terms = self.terms(given)
        if self.objective.take == "worst":
            cost = torch.stack(list(terms.values())).div(SHARP).logsumexp(0) * SHARP
        else:
            cost = cast("torch.Tensor", sum(weight * terms[split] for split, weight in self._weights().items()))
        known = self._known(given) if self.constraints else {}
        for one in self.constraints:
            cost = cost + BREACH * torch.relu(torch.as_tensor(one.excess(known), dtype=torch.float64))
        found = torch.autograd.grad(cost, list(given.values()), materialize_grads=True)
        return {split: float(slope) for split, slope in zip(given, found, strict=True)}

    def _weights(self) -> dict[str, float]:
        take = self.objective.take
        if isinstance(take, dict):
            return {split: weight / sum(take.values()) for split, weight in take.items()}
        return dict.fromkeys(self.lines.splits, 1 / len(self.lines.splits))

    def _bits(self, split: str) -> float:
        """Bits a byte of a nat a token."""
        return float(self.lines.counts(split).sum()) / self.lines.bytes[split] / math.log(2)

    def _known(self, losses: Mapping[str, Any]) -> dict[tuple[str, str, str], Any]:
        gaps = self.gaps(losses)
        found: dict[tuple[str, str, str], Any] = {("gap", MERGED, split): gap for split, gap in gaps.items()}
        for model, of_model in [(MERGED, losses), *self.sources.items()]:
            for split, loss in of_model.items():
                found["loss", model, split] = loss
                found["bits_per_byte", model, split] = loss * self._bits(split)
        return found
