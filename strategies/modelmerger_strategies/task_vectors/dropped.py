"""What the strategies that drop elements at random have in common. They differ in what they keep and how they merge."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from modelmerger_strategies.task_vectors import dropping, scaling
from modelmerger_strategies.task_vectors.merging import Merge

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 2


class Options(Protocol):
    """What they have among their options."""

    @property
    def rescale(self) -> dropping.Rescale:
        """How what is kept makes up for what is dropped."""

    @property
    def scaling_factor(self) -> scaling.Scale:
        """λ."""

    @property
    def normalize_weights(self) -> bool:
        """Whether the merged task vectors are averaged."""


Keep = Callable[[], Sequence["Tensor"]]
"""Makes the task vectors with zeros in place of what is dropped: the same ones at each call."""


def rounds(options: Options) -> int:
    """How many rounds are measured: one for `rescale: l1`, and one for the scale."""
    return (options.rescale == "l1") + (options.scaling_factor == "matched")


def measure(
    number: int,
    measurements: Sequence["Tensor"],
    tensors: Sequence["Tensor"],
    weights: Sequence[float],
    options: Options,
    keep: Keep,
    merge: Merge,
) -> "Tensor":
    """What round `number` measures of a block: sums of magnitudes for `rescale: l1`, then norms for the scale."""
    if number == 0 and options.rescale == "l1":
        return dropping.measure_sums(tensors, keep())
    return scaling.measure(_merged(measurements, weights, options, keep, merge), tensors, weights)


def merge_slice(
    measurements: Sequence["Tensor"], weights: Sequence[float], options: Options, keep: Keep, merge: Merge
) -> "Tensor":
    """λ·τ of a slice."""
    merged = _merged(measurements, weights, options, keep, merge)
    return merged.mul_(scaling.scale(options.scaling_factor, len(weights), measurements))


def _merged(
    measurements: Sequence["Tensor"], weights: Sequence[float], options: Options, keep: Keep, merge: Merge
) -> "Tensor":
    kept = keep()
    factors = dropping.factors(options.rescale, measurements, len(kept))
    for tensor, factor in zip(kept, factors, strict=True):
        if factor != 1:  # something was dropped, so it is no input
            tensor.mul_(factor)
    return merge(kept, weights, options.normalize_weights)
