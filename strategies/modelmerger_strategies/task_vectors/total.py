"""The weighted sum of task vectors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def total(tensors: Sequence["Tensor"], weights: Sequence[float]) -> "Tensor":
    """Σ wᵢτᵢ, a new tensor."""
    summed = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        summed.add_(tensor, alpha=weight)
    return summed
