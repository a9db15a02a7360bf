"""The mean of what models changed of their base, made smaller where they disagree.

    merged = θ_base + d · Σ wᵢtᵢτᵢ / Σ |wᵢtᵢ|,   τᵢ = θᵢ − θ_base

In each element, d is 1 where all wᵢτᵢ that are not zero have one sign, and `disputed` elsewhere; tᵢ is `trust`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from modelmerger import Traits, hookimpl, must_be_between, varying

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, None), inputs="updates")


@frozen(kw_only=True)
class Options:
    """Options of the strategy."""

    disputed: float = varying(default=0.5, check=must_be_between(0, 1))
    """What an element is multiplied by where the models disagree."""


@frozen(kw_only=True)
class ModelOptions:
    """What the strategy wants to know of each model."""

    trust: float = varying(default=1.0, check=must_be_between(0, 1000, open_below=True))
    """How much more the model counts, whatever its sign."""


@hookimpl
def merge_tensor(
    tensors: Sequence["Tensor"],
    weights: Sequence[float],
    model_options: Sequence[ModelOptions],
    options: Options,
) -> "Tensor":
    """What is added to the base."""
    import torch

    factors = [weight * told.trust for weight, told in zip(weights, model_options, strict=True)]
    parts = torch.stack([tensor * factor for tensor, factor in zip(tensors, factors, strict=True)])
    disagreed = (parts > 0).any(dim=0) & (parts < 0).any(dim=0)
    mean = parts.sum(dim=0) / sum(map(abs, factors))
    return torch.where(disagreed, mean * options.disputed, mean)
