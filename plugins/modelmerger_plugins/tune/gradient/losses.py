"""The losses of a merge on lines, at any numbers, and their derivatives."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from modelmerger_plugins.tune.gradient.skeleton import Skeleton, lines_together
from modelmerger_plugins.tune.measured import Lines, Nats

Vectors = Mapping[str, "np.ndarray"]
"""Tensor → its coefficients, as `Source` has them."""


class Losses:
    """Measures lines under a skeleton, a batch of one split at a time."""

    def __init__(self, skeleton: Skeleton, first: int, batch_tokens: int) -> None:
        """first: the token that a text begins with. batch_tokens: at a time, with padding."""
        self._skeleton, self._first, self._most = skeleton, first, batch_tokens

    def nats(self, lines: Lines, coefficients: Vectors) -> Nats:
        """The nats of each line."""
        given = {name: torch.from_numpy(vector) for name, vector in coefficients.items()}
        with torch.no_grad():
            return {split: self._split(lines, split, given) for split in lines.splits}

    def slopes(self, lines: Lines, coefficients: Vectors) -> tuple[Nats, dict[str, Vectors]]:
        """The nats of each line; and for each split, the derivatives of its nats a token for the coefficients."""
        found: dict[str, np.ndarray] = {}
        slopes: dict[str, Vectors] = {}
        for split in lines.splits:
            given = {name: torch.from_numpy(vector).clone().requires_grad_() for name, vector in coefficients.items()}
            found[split] = self._split(lines, split, given)
            slopes[split] = {
                name: np.zeros(len(one)) if one.grad is None else one.grad.numpy() for name, one in given.items()
            }
        return found, slopes

    def _split(self, lines: Lines, split: str, coefficients: Mapping[str, Tensor]) -> np.ndarray:
        own = lines.tokens[split]
        total = sum(map(len, own))
        nats = np.zeros(len(own))
        for group in lines_together([len(line) + 1 for line in own], self._most):
            tokens, attention, scored = batch_of([own[i] for i in group], self._first)
            each = self._skeleton.nats(tokens, attention, scored, coefficients).double()
            if each.requires_grad:
                torch.autograd.backward(each.sum() / total)
            rows = scored[:, 1:].nonzero()[:, 0].to(each.device)
            sums = torch.zeros(len(group), dtype=torch.float64, device=each.device)
            nats[group] = sums.index_add_(0, rows, each.detach()).cpu().numpy()
        return nats


def batch_of(lines: Sequence[Sequence[int]], first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, attention and what is scored of some lines: (lines, length) each, with a first token before each line."""
    length = 1 + max(map(len, lines))
    tokens = torch.full((len(lines), length), first)
    scored = torch.zeros((len(lines), length), dtype=torch.bool)
    for row, line in enumerate(lines):
        tokens[row, 1 : 1 + len(line)] = torch.tensor(line)
        scored[row, 1 : 1 + len(line)] = True
    attention = scored.long()
    attention[:, 0] = 1
    return tokens, attention, scored
