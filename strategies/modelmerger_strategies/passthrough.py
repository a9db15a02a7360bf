"""Passthrough: one model as it is, or scaled.

    merged = scale · θ

For copies, and for layers that are to begin as the identity: with a scale of 0 for the output projections of attention
and MLP, a layer adds nothing to the residual stream, as in Wu et al. 2024, "LLaMA Pro",
https://arxiv.org/abs/2401.02415, section 3.2. Not to make a model's fine-tuning weaker: that is task_arithmetic with a
base_model, while this also scales what was there before.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from modelmerger import Traits, hookimpl, varying

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, 1), weights=False)


@frozen(kw_only=True)
class Options:
    """Options of passthrough."""

    scale: float = varying(default=1.0)
    """What the tensors are multiplied by; 1 leaves them as they are."""


@hookimpl
def merge_tensor(tensors: Sequence["Tensor"], options: Options) -> "Tensor":
    """The product."""
    return tensors[0] * options.scale
