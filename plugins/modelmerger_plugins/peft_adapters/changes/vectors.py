"""Changes that one vector makes: it is added to a bias, or multiplies rows or columns."""

from typing import TYPE_CHECKING

from attrs import frozen

from modelmerger_plugins.peft_adapters.changes.change import Change, Sources, Update

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class Shifted(Update):
    """`lora_bias`: s·b is added to the bias of the layer."""

    key: str
    """The adapter's tensor b, (outputs,)."""
    scale: float
    """s."""

    @property
    def nothing_if_zero(self) -> tuple[str, ...]:
        """What is added."""
        return (self.key,)

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        """s·b as the one row of a matrix."""
        return sources.tensor(self.key)[None][first : first + count] * self.scale


@frozen
class Scaled(Change):
    """IA³: a matrix or a bias times a vector. Liu et al. 2022, https://arxiv.org/abs/2205.05638, section 3.3."""

    key: str
    """The adapter's tensor: one number a row, or one a column."""
    by_row: bool
    """Whether each row is multiplied by one number; else each column is, or each element of a bias."""

    @property
    def nothing_if_one(self) -> tuple[str, ...]:
        """What is multiplied by."""
        return (self.key,)

    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        """The block multiplied, in place."""
        vector = sources.tensor(self.key).reshape(-1)
        return block.mul_(vector[first : first + len(block), None] if self.by_row else vector)
