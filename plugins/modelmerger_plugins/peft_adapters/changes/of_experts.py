"""LoRA of a parameter that holds the matrices of several experts (`target_parameters`)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

from modelmerger_plugins.peft_adapters.changes.change import Sources, Update

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class Parameter:
    """A parameter that an adapter changes; it may lie in several tensors of the base's files."""

    module: str
    """The module that has it."""
    name: str
    """Its name in the module."""
    experts: int
    """How many experts it holds; 1 for a parameter that is a single matrix."""
    nested: tuple[str, ...]
    """All parameters of the module that the adapter changes, the one of the outermost factors first."""


@frozen
class OfExperts(Update):
    """s·Bₑ·Aₑ is added to the matrix of each expert e.

    The base's tensor is seen as these matrices on top of each other.
    """

    a: str
    """The adapter's tensor A, (experts · r, inputs): the rows of one expert after those of another."""
    b: str
    """The adapter's tensor B, (outputs, r · experts): the columns of all experts in turn."""
    scale: float
    """s."""
    swapped: bool
    """Whether the base stores the matrices transposed."""
    parameter: Parameter
    """What the base's tensor belongs to."""
    experts: range
    """Those of the parameter's experts that the base's tensor has."""
    first: int = 0
    """Of each expert, the first output that the base's tensor has."""
    last: int = 0
    """The output behind the last one; 0: all are there."""

    @property
    def nothing_if_zero(self) -> tuple[str, ...]:
        """B, which is zero before training, and A."""
        return self.b, self.a

    def factors(self, tensor: "Callable[[str], Tensor]", expert: int) -> "tuple[Tensor, Tensor]":
        """(rows, r) and (r, columns) of one expert: their product, times the scale, is added.

        `tensor` gives a tensor of the adapter by its key.
        """
        a, b, experts = tensor(self.a), tensor(self.b), self.parameter.experts
        rank = len(a) // experts
        a, b = a[expert * rank : (expert + 1) * rank], b[self.first : self.last or None, expert::experts]
        return (a.T, b.T) if self.swapped else (b, a)

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        """Rows of the stacked s·Bₑ·Aₑ; they may belong to several experts."""
        import torch

        rows, row, end = [], first, first + count
        while row < end:
            height = len(self.factors(sources.tensor, self.experts[0])[0])
            number, inner = divmod(row, height)
            left, right = self.factors(sources.tensor, self.experts[number])
            rows.append(left[inner : inner + end - row] @ right)
            row += len(rows[-1])
        return torch.cat(rows).mul_(self.scale)
