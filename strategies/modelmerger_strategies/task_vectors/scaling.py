"""The scale of merged task vectors: a number, or one that follows from the norms of what is merged.

`matched` makes every tensor's task vector as long as a share of the plain sum: ‖λ·τ‖ = share·‖Σ wᵢτᵢ‖. No data is
needed, and strategies that drop much or average need no other number than those that add up.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from modelmerger_strategies.task_vectors.total import total

if TYPE_CHECKING:
    from torch import Tensor

SHARE, EVEN_SHARE = 0.4, 0.55
"""Of four models or more, and that of strategies that make directions alike: tsv_m and iso_c. With the published
scales, siblings that were tuned from one base by four kinds of training lost up to 0.38 nats a token; with these
shares, four of them came close to the best scale of each."""
MEASURED_WITH = 4
"""So many models the shares were found with. For fewer, they were measured to be too small (`benchmarks/scales.py`)."""


def share_of(models: int, share: float) -> float:
    """The length of the merged task vector with `matched`, beside that of Σ wᵢτᵢ.

    Of n models it is the share, for fewer than four 4/n times as much, and at most 1: one model keeps its length.
    """
    return min(1.0, share * max(1.0, MEASURED_WITH / models)) if models else 1.0


def measure(merged: "Tensor", tensors: Sequence["Tensor"], weights: Sequence[float]) -> "Tensor":
    """‖τ‖² and ‖Σ wᵢτᵢ‖² of a block, float64: what `scale` needs. merged: τ, unscaled."""
    import torch

    return torch.stack([_square(merged), _square(total(tensors, weights))])


def scale(
    scaling_factor: float | Literal["matched"], models: int, measurements: Sequence["Tensor"], share: float = SHARE
) -> float:
    """λ. measurements: the last one is the sum of what `measure` found. models: how many task vectors there are.

    share: of four models or more. A task vector of zeros stays zero.
    """
    if isinstance(scaling_factor, float):
        return scaling_factor
    merged, plain = map(math.sqrt, measurements[-1].tolist())
    return share_of(models, share) * plain / merged if merged else 0.0


def _square(tensor: "Tensor") -> "Tensor":
    import torch

    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return norm.square()
