"""The weighted sum of task vectors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def total(tensors: Sequence["Tensor"], weights: Sequence[float], out: "Tensor | None" = None) -> "Tensor":
    """Σ wᵢτᵢ, a new tensor or `out`, which is none of the tensors."""
    import torch

    summed = torch.mul(tensors[0], weights[0], out=out)
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        summed.add_(tensor, alpha=weight)
    return summed
