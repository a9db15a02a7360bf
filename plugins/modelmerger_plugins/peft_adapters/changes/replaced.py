"""What was trained whole replaces what the base has."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from modelmerger_plugins.peft_adapters.changes.change import Change, Sources

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class Replaced(Change):
    """A tensor that was trained whole (`modules_to_save`, biases)."""

    key: str
    """The adapter's tensor, of the shape of the base's."""

    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        """The same rows of the adapter's tensor."""
        return sources.rows(self.key, first, first + len(block)).view_as(block)


@frozen
class ReplacedRows(Change):
    """`trainable_token_indices`: some rows of an embedding were trained whole."""

    key: str
    """The adapter's tensor: these rows alone, (rows, columns)."""
    indices: Sequence[int]
    """Which rows of the base's tensor they are."""

    def apply(self, block: "Tensor", first: int, sources: Sources) -> "Tensor":
        """The block with those of its rows replaced that are among the indices."""
        for number, index in enumerate(self.indices):
            if first <= index < first + len(block):
                block[index - first] = sources.tensor(self.key)[number]
        return block
