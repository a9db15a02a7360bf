"""The weighted sum of task vectors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def total(tensors: Sequence["Tensor"], weights: Sequence[float], out: "Tensor | None" = None) -> "Tensor":
    """Σ wᵢτᵢ, a new tensor or `out`, which is none of the tensors.

    Each product is rounded before it is added: one that is not, as some processors do it, has opposites leave a rest.
    """
    import torch

    summed = torch.mul(tensors[0], weights[0], out=out)
    product = torch.empty_like(summed)
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        summed.add_(tensor if weight == 1 else torch.mul(tensor, weight, out=product))
    return summed
