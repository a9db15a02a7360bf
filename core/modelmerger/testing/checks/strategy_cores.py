"""The check of strategies that merge the updates of adapters in the space that these share."""

import math

import torch

from modelmerger.testing.checks.check import assert_close, works
from modelmerger.testing.checks.strategy import Inputs, StrategyUnderTest, drawn

NAME, ROWS, COLUMNS, RANK = "model.layers.0.mlp.weight", 20, 28, 2
"""A matrix that is larger than the sum of the ranks, or a core would be no smaller than it."""


def check_cores(strategy: StrategyUnderTest) -> None:
    """`merge_cores` makes of the cores of low-rank updates what `merge_tensor` makes of the updates.

    For strategies with that hook that want a base. What a strategy sees as "linear" has no cores.
    """
    what = f"{strategy.name}: a merge of low-rank updates"
    lefts, rights = ([_factor(seed + place, size) for seed in range(strategy.count)] for place, size in _SIDES)
    updates = [left @ right.T for left, right in zip(lefts, rights, strict=True)]
    base = drawn(0, {NAME: (ROWS, COLUMNS)}, dtype=torch.float64)
    given = Inputs([{NAME: base[NAME] + update} for update in updates], base)
    planned = strategy.plan(given, what, [1.0, 0.75, 0.5, 0.25][: strategy.count])
    (plan,) = planned.plan.tensors
    if plan.action != "merge":
        return
    with works(what):
        due = planned.merge()[NAME].double() - base[NAME]
    cores, left, right = _cores(lefts, rights)
    noise = [
        float(update.norm()) * torch.finfo(update.dtype).eps / math.sqrt(core.numel())
        for update, core in zip(updates, cores, strict=True)
    ]
    with works(what):
        merged = planned.hooks.strategy.merge_cores(
            cores, noise, plan.weights, plan.model_options, plan.options, NAME, plan.shape
        )
    sentence = (
        f"{what} must be the same by merge_cores as by merge_tensor. Give it weights, options and scale as there; for "
        "what single elements decide, leave merge_cores out."
    )
    assert_close({NAME: left @ merged @ right.T}, {NAME: due}, sentence)


_SIDES = ((100, ROWS), (200, COLUMNS))


def _factor(seed: int, size: int) -> torch.Tensor:
    return drawn(seed, {NAME: (size, RANK)}, dtype=torch.float64)[NAME] / 10


def _cores(
    lefts: list[torch.Tensor], rights: list[torch.Tensor]
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """The core of each update, and the orthonormal columns on either side of all of them."""
    left, inner_left = torch.linalg.qr(torch.cat(lefts, 1))
    right, inner_right = torch.linalg.qr(torch.cat(rights, 1))
    pairs = zip(inner_left.split(RANK, 1), inner_right.split(RANK, 1), strict=True)
    return [ours @ theirs.T for ours, theirs in pairs], left, right
