"""Keeps elements by magnitude: thresholds of each tensor, exact, from ranks."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from modelmerger import must_be_between, varying

from modelmerger_strategies.task_vectors import magnitudes
from modelmerger_strategies.task_vectors.family import Slice, Told

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = magnitudes.ROUNDS + 1
SHARE_KEPT = must_be_between(0, 1, open_below=True)


@frozen(kw_only=True)
class ModelOptions:
    """What these strategies want to know of each model."""

    density: float | None = varying(default=None, check=SHARE_KEPT)
    """The share of this model's task vector that is kept; where it is not given, that of `options`."""


@frozen
class Trimmed:
    """Of each task vector, the magnitudes between two ranks."""

    ranks: Callable[[Told], magnitudes.Ranks]
    """Of each task vector, the rank of the smallest magnitude that is kept, then of the largest; one or both may be
    left out."""

    def rounds(self, told: Told) -> int:
        """Those that find the thresholds."""
        return magnitudes.rounds(self.ranks(told))

    def measure(self, number: int, given: Slice) -> "Tensor":
        """Histograms."""
        return magnitudes.count(given.tensors, self.ranks(given), number, given.measurements)

    def found(self, given: Slice) -> Sequence[Sequence[int]]:
        """The thresholds of each task vector."""
        return magnitudes.find(self.ranks(given), given.measurements)

    def kept(self, given: Slice, found: Sequence[Sequence[int]]) -> Sequence["Tensor"]:
        """What lies between the thresholds."""
        pairs = zip(given.tensors, found, strict=True)
        return [magnitudes.keep(tensor, *bounds) if bounds else tensor for tensor, bounds in pairs]
