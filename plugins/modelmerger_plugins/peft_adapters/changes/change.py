"""A change of one tensor of the base, made in blocks of rows.

A tensor is seen as a matrix: its first dimension by all the others, a vector as one row. Blocks begin at multiples of
64 rows, however the tensor is read, so that every number is always computed in the same product and keeps its bits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 64
"""Rows in a block; the last one has what is left."""


class Sources(Protocol):
    """Where a change finds what it needs, in the dtype of the arithmetic."""

    def tensor(self, key: str) -> "Tensor":
        """A tensor of the adapter."""

    def rows(self, key: str, first: int, last: int) -> "Tensor":
        """Rows of a tensor of the adapter that has the shape of the base's, as a vector."""

    def original(self, first: int) -> "Tensor":
        """The block (up to 64 rows, columns) of the base's tensor that begins with this row."""

    def starts(self) -> range:
        """The first rows of all blocks."""

    def once(self, what: str, make: "Callable[[], Tensor]") -> "Tensor":
        """What `make` gives, made once for the whole tensor."""


class Change(ABC):
    """A change of one tensor."""

    @property
    def nothing_if_zero(self) -> tuple[str, ...]:
        """Those of the adapter's tensors any one of which makes the change nothing where all its numbers are zero."""
        return ()

    @property
    def nothing_if_one(self) -> tuple[str, ...]:
        """The same, where all its numbers are one."""
        return ()

    @abstractmethod
    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        """The block (up to 64 rows, columns) after the change; it may be changed itself. `first`: its first row."""


class Update(Change):
    """A change that adds a matrix which does not depend on the base."""

    @abstractmethod
    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        """`count` rows (at most 64) of what is added, from row `first`: (count, columns)."""

    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        """The block with the update added, in place."""
        return block.add_(self.update(first, len(block), sources))
