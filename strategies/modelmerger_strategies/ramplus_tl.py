"""RAM+, tensor by tensor: as ram, but what one model alone changes is made larger the more that model shares.

    merged = θ_base + Σ fᵢ·mᵢ·τᵢ,   mᵢ = [|τᵢ| > epsilon],   τᵢ = θᵢ − θ_base,   element by element

fᵢ is 1/Σ mⱼ where several models change the element, and λᵢ = 1 + r·min(ρᵢ, alpha) where model i alone does; ρᵢ is the
number of the tensor's elements that model i changes with others, over the number of those that it changes alone. Yuan
et al. 2026, "Behavior Knowledge Merge in Reinforced Agentic Models", https://arxiv.org/abs/2601.13572. There ρ is taken
over the whole model; this is the tensor-local form that mergekit has, with its defaults.

For and against it: as for ram. What is averaged loses strength, and this gives some of it back.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen
from modelmerger import Check, Traits, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, None), inputs="updates", weights=False)

not_negative = Check({"minimum": 0}, lambda value: None if value >= 0 else f"must not be negative, got {value!r}")


@frozen(kw_only=True)
class Options:
    """Options of ramplus_tl."""

    r: float = field(default=0.1, validator=not_negative)
    """How much λ grows with ρ."""
    alpha: float = field(default=0.2, validator=not_negative)
    """The largest ρ that counts."""
    epsilon: float = field(default=1e-5, validator=not_negative)
    """A difference from the base counts as a change if it is larger."""


@hookimpl
def measure_tensor(tensors: Sequence["Tensor"], options: Options) -> "Tensor":
    """How many elements each model changes with others, and alone: int64 of shape (models, 2)."""
    import torch

    changed = [tensor.abs() > options.epsilon for tensor in tensors]
    count = _count(changed)
    return torch.stack([torch.stack([(own & (count > 1)).sum(), (own & (count == 1)).sum()]) for own in changed])


@hookimpl
def merge_tensor(tensors: Sequence["Tensor"], measurements: Sequence["Tensor"], options: Options) -> "Tensor":
    """The mean of what several change, and λ times what one alone changes."""
    import torch

    changed = [tensor.abs() > options.epsilon for tensor in tensors]
    count = _count(changed)
    merged = torch.zeros_like(tensors[0])
    for tensor, own, (shared, alone) in zip(tensors, changed, measurements[0].tolist(), strict=True):
        overlap = min(shared / max(alone, 1), options.alpha)
        kept = torch.where(count > 1, tensor / count.clamp(min=1), tensor * (1 + options.r * overlap))
        merged += torch.where(own, kept, 0.0)
    return merged


def _count(changed: Sequence["Tensor"]) -> "Tensor":
    import torch

    return torch.stack(list(changed)).sum(dim=0)
