"""Keeps elements at random, and makes up for what is dropped."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import frozen
from modelmerger import must_be_between, varying

from modelmerger_strategies.task_vectors import dropping
from modelmerger_strategies.task_vectors.family import Options as _Options
from modelmerger_strategies.task_vectors.family import Slice, Told

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 2
PROBABILITY = must_be_between(0, 1, open_below=True)


@frozen(kw_only=True)
class Options(_Options):
    """Options of these strategies."""

    rescale: Literal["l1"] | bool = True
    """true: what is kept is divided by its probability, as in the paper; l1: each tensor keeps its sum of magnitudes,
    as in mergekit; false: neither."""


@frozen(kw_only=True)
class ModelOptions:
    """What these strategies want to know of each model."""

    density: float | None = varying(default=None, check=PROBABILITY)
    """The mean probability of an element of this model to be kept; where it is not given, that of `options`."""


def _anything(_: Told) -> None:
    """Refuses no options."""


@frozen
class Dropped:
    """Of each task vector, elements that are drawn."""

    drop: Callable[[Slice], Sequence["Tensor"]]
    """The task vectors with zeros in place of what is dropped: the same ones at each call."""
    check: Callable[[Told], None] = _anything
    """Raises `ConfigError` for options that make no sense for a tensor."""

    def rounds(self, told: Told) -> int:
        """One for `rescale: l1`."""
        self.check(told)
        return int(told.options.rescale == "l1")

    def taken(self, told: Told, measurements: Sequence["Tensor"]) -> int | None:
        """As many as there are."""
        rounds = self.rounds(told)
        return rounds if len(measurements) >= rounds else None

    def measure(self, _: int, given: Slice) -> "Tensor":
        """Sums of magnitudes, before and after."""
        return dropping.measure_sums(given.tensors, self.drop(given))

    def found(self, given: Slice) -> Sequence[float]:
        """What the kept elements of each task vector are multiplied by."""
        return dropping.factors(given.options.rescale, given.measurements, len(given.tensors))

    def kept(self, given: Slice, found: Sequence[float]) -> Sequence["Tensor"]:
        """What was drawn, made larger."""
        kept = self.drop(given)
        for tensor, factor in zip(kept, found, strict=True):
            if factor != 1:  # something was dropped, so it is no input
                tensor.mul_(factor)
        return kept
