"""The terms of strategies that make something of each task vector, whatever the weights are, and then add up."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelmerger import Terms

from modelmerger_strategies.task_vectors import scaling

if TYPE_CHECKING:
    from torch import Tensor

Factors = tuple["Tensor", "Tensor"]
"""Of a matrix: (rows, r) and (r, columns)."""


def terms_of(
    terms: "Sequence[Tensor | Factors]", updates: "Sequence[Tensor]", share: float, *, divides: bool = False
) -> Terms:
    """Terms of which the merged task vector is λ·Σ wᵢ·termᵢ.

    updates: the task vectors; where λ follows from norms, these do from the inner products of what is added up. share:
    of `matched`, for four models or more. divides: whether `normalize_weights` divides the sum by Σ|wᵢ|.
    """
    import torch

    whole = [term if isinstance(term, torch.Tensor) else term[0] @ term[1] for term in terms]
    plain, merged = _products(updates), _products(whole)

    def weigh(weights: Sequence[float], _: Sequence[Any], options: Any) -> list[float]:
        divisor = sum(map(abs, weights)) if divides and options.normalize_weights else 1.0
        told = torch.tensor(weights, dtype=torch.float64)
        squares = torch.stack([told @ merged @ told / divisor**2, told @ plain @ told]).clamp(min=0)
        factor = scaling.scale(options.scaling_factor, len(weights), [squares], share)
        return [factor * weight / divisor for weight in weights]

    return Terms(terms, weigh, follows=("scaling_factor", *["normalize_weights"] * divides))


def _products(tensors: "Sequence[Tensor]") -> "Tensor":
    """The inner products of tensors: float64, (tensors, tensors)."""
    import torch

    flat = [tensor.reshape(-1).double() for tensor in tensors]
    return torch.stack([torch.stack([torch.dot(one, other) for other in flat]) for one in flat]).cpu()
