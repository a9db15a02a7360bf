"""What an adapter does to one tensor of its base, formula by formula, in blocks of 64 rows.

A tensor is seen as a matrix: its first dimension by all the others, a vector as one row. Blocks begin at multiples of 64 rows,
however the tensor is read, so that every number is always computed in the same product and keeps its bits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 64
"""Rows in a block; the last one has what is left."""


class MisfitError(Exception):
    """Why the tensors of one module make no change of the base."""


class Sources(Protocol):
    """Where a change finds what it needs, in the dtype of the arithmetic."""

    def whole(self, key: str) -> "Tensor":
        """A tensor of the adapter."""

    def rows(self, key: str, first: int, last: int) -> "Tensor":
        """Rows of a tensor of the adapter that has the rows of the base's."""

    def original(self, first: int) -> "Tensor":
        """The block of the base's tensor that begins with this row."""

    def starts(self) -> range:
        """The first rows of all blocks."""

    def kept(self, what: str, make: "Callable[[], Tensor]") -> "Tensor":
        """What is made once for the whole tensor."""


class Change(ABC):
    """A change of one tensor."""

    @abstractmethod
    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        """The block (up to 64 rows, columns) after the change. `first`: its first row. The block itself may be changed."""


class Update(Change):
    """A change that adds a matrix which does not depend on the base."""

    @abstractmethod
    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        """`count` rows of what is added, from row `first`."""

    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        return block.add_(self.update(first, len(block), sources))


@frozen
class LowRank(Update):
    """LoRA: W + s·B·A. Hu et al. 2021, https://arxiv.org/abs/2106.09685, eq. 3.

    swapped: the base stores the transposed matrix (Conv1D, embeddings), so that s·Aᵀ·Bᵀ is added.
    """

    a: str
    b: str
    scale: float
    swapped: bool

    def factors(self, whole: "Callable[[str], Tensor]") -> "tuple[Tensor, Tensor]":
        """(rows, r) and (r, columns): their product, times the scale, is added. `whole` gives a tensor of the adapter."""
        a, b = whole(self.a), whole(self.b)
        if self.swapped:
            return a.T, b.T
        return b.flatten(1), a.flatten(1)

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        left, right = self.factors(sources.whole)
        return (left[first : first + count] @ right).mul_(self.scale)


@frozen
class OfExperts(Update):
    """`target_parameters`: to the matrix of each expert e, s·Bₑ·Aₑ is added; of a parameter that is a matrix, there is one expert.

    A (experts · r, inputs) has the rows of one expert after another, B (outputs, r · experts) the columns of all experts in turn.
    The base's tensor has the experts `held`, of each the outputs from `first` to `last` (all, where `last` is 0), and is seen as
    their matrices on top of each other. swapped: they are stored transposed. nested: the parameters of the module that the adapter
    changes, the one of the outermost factors first. parameter: the one that this is a part of.
    """

    a: str
    b: str
    scale: float
    swapped: bool
    module: str
    nested: tuple[str, ...]
    parameter: str
    experts: int
    held: range
    first: int
    last: int

    def factors(self, whole: "Callable[[str], Tensor]", expert: int) -> "tuple[Tensor, Tensor]":
        """(rows, r) and (r, columns) of one expert: their product, times the scale, is added."""
        a, b = whole(self.a), whole(self.b)
        rank = len(a) // self.experts
        a, b = a[expert * rank : (expert + 1) * rank], b[self.first : self.last or None, expert :: self.experts]
        return (a.T, b.T) if self.swapped else (b, a)

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        import torch

        parts, row, end = [], first, first + count
        while row < end:
            height = len(self.factors(sources.whole, self.held[0])[0])
            number, inner = divmod(row, height)
            left, right = self.factors(sources.whole, self.held[number])
            parts.append(left[inner : inner + end - row] @ right)
            row += len(parts[-1])
        return torch.cat(parts).mul_(self.scale)


@frozen
class Decomposed(Change):
    """DoRA: m ⊙ (W + s·B·A) / ‖W + s·B·A‖, norms over inputs. Liu et al. 2024, https://arxiv.org/abs/2402.09353, eq. 5."""

    direction: LowRank
    magnitude: str

    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        magnitude = sources.whole(self.magnitude).reshape(-1)
        if self.direction.swapped:
            factor = magnitude / sources.kept("column norms", lambda: self._column_norms(sources))
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


@frozen
class Replaced(Change):
    """A tensor that was trained whole (`modules_to_save`, biases)."""

    key: str

    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        return sources.rows(self.key, first, first + len(block)).view_as(block)


@frozen
class ReplacedRows(Change):
    """`trainable_token_indices`: some rows of an embedding were trained whole."""

    key: str
    indices: Sequence[int]

    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        for number, index in enumerate(self.indices):
            if first <= index < first + len(block):
                block[index - first] = sources.whole(self.key)[number]
        return block


@frozen
class Shifted(Update):
    """`lora_bias`: s·b is added to the bias of the layer."""

    key: str
    scale: float

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        return sources.whole(self.key)[None][first : first + count] * self.scale


@frozen
class Scaled(Change):
    """IA³: rows, columns, or the elements of a bias times a vector. Liu et al. 2022, https://arxiv.org/abs/2205.05638, section 3.3."""

    key: str
    by_row: bool

    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        vector = sources.whole(self.key).reshape(-1)
        return block.mul_(vector[first : first + len(block), None] if self.by_row else vector)


@frozen
class Hadamard(Update):
    """LoHa: s·(B₁A₁ ⊙ B₂A₂). Hyeon-Woo et al. 2022, https://arxiv.org/abs/2108.06098, section 2.1."""

    pairs: tuple[tuple[str, str], tuple[str, str]]
    scale: float

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        one, two = (sources.whole(b)[first : first + count] @ sources.whole(a) for b, a in self.pairs)
        return one.mul_(two).mul_(self.scale)


@frozen
class Kronecker(Update):
    """LoKr: s·(C ⊗ D), each whole or a product of two factors. Yeh et al. 2023, https://arxiv.org/abs/2309.14859, section 3.2."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    scale: float

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        left = sources.kept("left of ⊗", lambda: _product(self.left, sources))
        right = sources.kept("right of ⊗", lambda: _product(self.right, sources))
        rows = range(first, first + count)
        outer = left[[row // len(right) for row in rows]]
        inner = right[[row % len(right) for row in rows]]
        return (outer[:, :, None] * inner[:, None, :]).flatten(1).mul_(self.scale)


@frozen
class Vera(Update):
    """VeRA: (b ⊙ B)(d ⊙ A), of A and B that all layers share the first columns and rows. Kopiczko et al. 2024,
    https://arxiv.org/abs/2310.11454, eq. 2.

    swapped: the base stores the transposed matrix. out, into: of the layer.
    """

    a: str
    b: str
    out_scales: str
    rank_scales: str
    out: int
    into: int
    swapped: bool

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        rows = slice(first, first + count)
        a = sources.whole(self.a)[:, : self.into] * sources.whole(self.rank_scales)[:, None]
        b, scales = sources.whole(self.b)[: self.out], sources.whole(self.out_scales)[:, None]
        if self.swapped:
            return a.T[rows] @ (b * scales).T
        return (b[rows] * scales[rows]) @ a


def _product(keys: tuple[str, ...], sources: Sources) -> "Tensor":
    first, *others = (sources.whole(key) for key in keys)
    return first @ others[0] if others else first
