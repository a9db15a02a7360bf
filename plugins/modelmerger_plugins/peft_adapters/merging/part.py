"""A part of a merged adapter: what it does to one tensor of the base, in whatever form."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import sqrt

import torch
from attrs import frozen
from modelmerger import Checkpoint, Coefficients
from torch import Tensor

from modelmerger_plugins.peft_adapters.changes.change import Change


class Part(ABC):
    """What the merged adapter does to one tensor of the base, or to the tensors that are one parameter."""

    tensor: str
    """The tensor of the base, or the parameter."""

    @property
    @abstractmethod
    def in_memory(self) -> str:
        """What the model in memory, and so PEFT, calls the tensor or the parameter."""

    @property
    @abstractmethod
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The merged adapter's tensors of this part: key → shape."""

    @property
    @abstractmethod
    def changes(self) -> Mapping[str, Change]:
        """The same as changes: tensor of the base → what these tensors do to it."""

    @property
    @abstractmethod
    def counts(self) -> bool:
        """Whether any model that changes the tensor has another coefficient than 0."""

    @property
    @abstractmethod
    def numbers(self) -> int:
        """How many numbers the factors of all adapters have together; 0 where nothing is multiplied."""

    @abstractmethod
    def values(self, key: str, start: int, stop: int) -> Tensor:
        """Elements `start` to `stop` of one of the flattened tensors, float64.

        Raises `NumericError` where an adapter holds a NaN or an infinity.
        """

    @abstractmethod
    def weighed(self, base: Checkpoint, coefficients: Coefficients) -> "Part":
        """The same with a coefficient for each model. Raises what `coefficients` raises."""

    @abstractmethod
    def measured(self, dtype: torch.dtype) -> "Measured":
        """The same with its rank, and how well it says what it should when it is written in `dtype`."""


@frozen(eq=False)
class Measured:
    """A part that was measured."""

    part: Part
    """The part; its rank is known."""
    square: float
    """The squared Frobenius norm of the update that it should be."""
    missing: float
    """The squared Frobenius norm of the difference between that and what is written."""

    @property
    def relative_error(self) -> float:
        """‖written − exact‖/‖exact‖; 0 where the update is zero."""
        return sqrt(self.missing / self.square) if self.square else 0.0
