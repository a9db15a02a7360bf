"""The space that the low-rank updates of several models share, and each update as a small matrix in it.

With the models' factors stacked, L = [L₁ … Lₙ] = U·S and R = [R₁; …; Rₙ] = T·V by QR, update i is U·(Sᵢ·Tᵢ)·V. What
does not depend on the orthonormal basis, as singular values, is the same for the core Sᵢ·Tᵢ and for the update, so that
Σ rᵢ takes the place of the matrix's size. All in float64.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from modelmerger_plugins.peft_adapters.merging.factors import REDUNDANT, Pair, stacked

MergeCores = Callable[[Sequence[Tensor], Sequence[float]], Tensor]
"""Makes the merged core of all models' cores and of their noise."""


def merged_in_cores(updates: Sequence[Sequence[Pair]], merge: MergeCores) -> Pair:
    """What a merge of the cores comes to. updates: of each model; none where it leaves the tensor as it is.

    At least one model has an update.
    """
    factors = [stacked(pairs) if pairs else None for pairs in updates]
    there = [found for found in factors if found is not None]
    left, inner_left = torch.linalg.qr(torch.cat([one[0] for one in there], 1))
    right, inner_right = torch.linalg.qr(torch.cat([one[1] for one in there]).T)
    widths = [0 if found is None else found[0].shape[1] for found in factors]
    inner = zip(inner_left.split(widths, 1), inner_right.split(widths, 1), strict=True)
    cores = [ours @ theirs.T for ours, theirs in inner]
    noise = [0.0 if found is None else _noise(*found, cores[0]) for found in factors]
    return Pair(1.0, left @ merge(cores, noise), right.T)


def _noise(left: Tensor, right: Tensor, core: Tensor) -> float:
    """The root mean square of what rounding may have changed in the numbers of the core of left · right."""
    return REDUNDANT * float(left.norm() * right.norm()) / math.sqrt(core.numel())
