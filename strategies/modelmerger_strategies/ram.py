"""RAM, reinforced agent merging: averages what several models change, and keeps what one alone changes.

    merged = θ_base + Σ mᵢ·τᵢ / max(1, Σ mᵢ),   mᵢ = [|τᵢ| > epsilon],   τᵢ = θᵢ − θ_base,   element by element

Yuan et al. 2026, "Behavior Knowledge Merge in Reinforced Agentic Models", https://arxiv.org/abs/2601.13572.

For models tuned by reinforcement learning, which change few elements, and each others: an average over all models
would divide what one alone learnt by their number. Not for supervised fine-tunes, which change nearly all elements: it
is then the plain average of the task vectors.
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
    """Options of ram."""

    epsilon: float = field(default=1e-5, validator=not_negative)
    """A difference from the base counts as a change if it is larger; the default is mergekit's."""


@hookimpl
def merge_tensor(tensors: Sequence["Tensor"], options: Options) -> "Tensor":
    """The mean over the models that change an element; 0 where none does."""
    import torch

    total, count = torch.zeros_like(tensors[0]), torch.zeros_like(tensors[0])
    for tensor in tensors:
        changed = tensor.abs() > options.epsilon
        total += torch.where(changed, tensor, 0.0)
        count += changed
    return total / count.clamp(min=1)
