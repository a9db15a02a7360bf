"""LoRA, and DoRA, which rescales what LoRA makes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

from modelmerger_plugins.peft_adapters.changes.change import Change, Sources, Update

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class LowRank(Update):
    """LoRA: W + s·B·A. Hu et al. 2021, https://arxiv.org/abs/2106.09685, eq. 3."""

    a: str
    """The adapter's tensor A, (r, inputs); of a convolution, with the kernel's dimensions behind."""
    b: str
    """The adapter's tensor B, (outputs, r)."""
    scale: float
    """s."""
    swapped: bool
    """Whether the base stores the transposed matrix (Conv1D, embeddings), so that s·Aᵀ·Bᵀ is added."""

    @property
    def nothing_if_zero(self) -> tuple[str, ...]:
        """B, which is zero before training, and A."""
        return self.b, self.a

    def factors(self, tensor: "Callable[[str], Tensor]") -> "tuple[Tensor, Tensor]":
        """(rows, r) and (r, columns): their product, times the scale, is added.

        `tensor` gives a tensor of the adapter by its key.
        """
        a, b = tensor(self.a), tensor(self.b)
        if self.swapped:
            return a.T, b.T
        return b.flatten(1), a.flatten(1)

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        """Rows of s·B·A."""
        left, right = self.factors(sources.tensor)
        return (left[first : first + count] @ right).mul_(self.scale)


@frozen
class Decomposed(Change):
    """DoRA: m ⊙ (W + s·B·A) / ‖W + s·B·A‖, norms over inputs.

    Liu et al. 2024, https://arxiv.org/abs/2402.09353, eq. 5.
    """

    direction: LowRank
    """s·B·A."""
    magnitude: str
    """The adapter's tensor m: one number an output."""

    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        """The block with the update added, its rows (of a transposed base: its columns) brought to the magnitudes."""
        magnitude = sources.tensor(self.magnitude).reshape(-1)
        if self.direction.swapped:
            factor = magnitude / sources.once("column norms", lambda: self._column_norms(sources))
        else:
            norms = self.direction.apply(sources.original(first), first, sources).square_().sum(1).sqrt_()
            factor = (magnitude[first : first + len(block)] / norms)[:, None]
        return self.direction.apply(block, first, sources).mul_(factor)

    def _column_norms(self, sources: Sources) -> "Tensor":
        squares = [
            self.direction.apply(sources.original(first), first, sources).square_().sum(0) for first in sources.starts()
        ]
        total = squares[0]
        for square in squares[1:]:
            total += square
        return total.sqrt_()
