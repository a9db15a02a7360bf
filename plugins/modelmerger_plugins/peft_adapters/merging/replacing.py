"""The part of a merged adapter that is a tensor, or some rows of one, in full."""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from attrs import evolve, frozen
from modelmerger import Checkpoint, Coefficients, read_elements
from torch import Tensor

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.changes.replaced import Replaced, ReplacedRows
from modelmerger_plugins.peft_adapters.merging.part import Measured, Part

SCANNED = 1 << 18
"""Elements that are looked at in one go."""


@frozen(eq=False)
class ReplacingPart(Part):
    """base + Σ c·(model − base): what adapters that replace a tensor, or shift it, come to."""

    tensor: str
    """The tensor of the base."""
    base: Checkpoint
    """The base."""
    models: Mapping[int, Checkpoint]
    """The models that change the tensor, folded, by number."""
    in_memory: str
    """What PEFT calls the tensor."""
    key: str
    """The name of the merged adapter's tensor."""
    indices: Sequence[int] | None = None
    """The rows that the merged adapter replaces; None for the whole tensor."""
    count: int = 0
    """How many models are merged, with those that leave the tensor as it is."""
    coefficients: Sequence[float] = ()
    """One a model, once they are known."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """That of the tensor, or of its rows."""
        shape = self.base.tensors[self.tensor].shape
        return {self.key: shape if self.indices is None else (len(self.indices), *shape[1:])}

    @property
    def changes(self) -> Mapping[str, Change]:
        """The tensor, or its rows, replaced."""
        return {self.tensor: Replaced(self.key) if self.indices is None else ReplacedRows(self.key, self.indices)}

    @property
    def counts(self) -> bool:
        """Whether any model that changes the tensor has another coefficient than 0."""
        return any(self.coefficients[model] for model in self.models)

    @property
    def numbers(self) -> int:
        """None: it has no factors."""
        return 0

    def values(self, key: str, start: int, stop: int) -> Tensor:
        """Elements of the tensor, or of its rows."""
        if self.indices is None:
            return self._interpolated(start, stop)
        width = prod(self.shapes[key][1:])
        first, last = start // width, -(-stop // width)
        rows = [self._interpolated(row * width, (row + 1) * width) for row in self.indices[first:last]]
        return torch.cat(rows)[start - first * width : stop - first * width]

    def weighed(self, base: Checkpoint, coefficients: Coefficients) -> "ReplacingPart":
        """With the coefficients."""
        return evolve(self, coefficients=coefficients(self.tensor, base.tensors[self.tensor].shape, self._gram))

    def measured(self, dtype: torch.dtype) -> Measured:
        """What rounding loses. Written in float64, it is what it should be, and is not looked at."""
        square = missing = 0.0
        for start, stop in self._spans() if dtype != torch.float64 else ():
            exact = self._interpolated(start, stop)
            square += float((exact - self._of_base(start, stop)).square_().sum())
            missing += float((exact.to(dtype).double() - exact).square_().sum())
        return Measured(self, square, missing)

    def _gram(self) -> list[list[float]]:
        gram = torch.zeros(self.count, self.count, dtype=torch.float64)
        for start, stop in self._spans():
            base = self._of_base(start, stop)
            updates = {i: self._of(model, start, stop) - base for i, model in self.models.items()}
            for i, ours in updates.items():
                for j, theirs in updates.items():
                    gram[i, j] += torch.dot(ours, theirs)
        return gram.tolist()

    def _spans(self) -> list[tuple[int, int]]:
        """The elements that may change, from … to, a few at a time."""
        info = self.base.tensors[self.tensor]
        if self.indices is not None:
            width = prod(info.shape[1:])
            return [(row * width, (row + 1) * width) for row in self.indices]
        return [(start, min(info.elements, start + SCANNED)) for start in range(0, info.elements, SCANNED)]

    def _interpolated(self, start: int, stop: int) -> Tensor:
        """(1 − Σ c)·base + Σ c·model; what has the coefficient 0 is not read."""
        shares = [(self.coefficients[number], model) for number, model in self.models.items()]
        total = torch.zeros(stop - start, dtype=torch.float64)
        for share, checkpoint in ((1 - sum(share for share, _ in shares), self.base), *shares):
            if share:
                total += self._of(checkpoint, start, stop) * share
        return total

    def _of_base(self, start: int, stop: int) -> Tensor:
        return self._of(self.base, start, stop)

    def _of(self, checkpoint: Checkpoint, start: int, stop: int) -> Tensor:
        return read_elements(checkpoint, self.tensor, start, stop).double()
