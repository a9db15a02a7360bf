"""What the strategies that keep elements by magnitude have in common. They differ in the ranks and how they merge."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from modelmerger_strategies.task_vectors import magnitudes, scaling
from modelmerger_strategies.task_vectors.merging import Merge

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = magnitudes.ROUNDS + 1


class Options(Protocol):
    """What they have among their options."""

    @property
    def scaling_factor(self) -> scaling.Scale:
        """λ."""

    @property
    def normalize_weights(self) -> bool:
        """Whether the merged task vectors are averaged."""


def rounds(options: Options, ranks: magnitudes.Ranks) -> int:
    """How many rounds are measured: those that find the thresholds, and one for the scale."""
    return magnitudes.rounds(ranks) + (options.scaling_factor == "matched")


def measure(
    number: int,
    measurements: Sequence["Tensor"],
    tensors: Sequence["Tensor"],
    weights: Sequence[float],
    options: Options,
    ranks: magnitudes.Ranks,
    merge: Merge,
) -> "Tensor":
    """What round `number` measures of a block: histograms for the thresholds, then norms for the scale.

    ranks: of each task vector, the smallest magnitude that is kept, then the largest; one or both may be left out.
    """
    if number < magnitudes.rounds(ranks):
        return magnitudes.count(tensors, ranks, number, measurements)
    return scaling.measure(_merged(measurements, tensors, weights, options, ranks, merge), tensors, weights)


def merge_slice(
    measurements: Sequence["Tensor"],
    tensors: Sequence["Tensor"],
    weights: Sequence[float],
    options: Options,
    ranks: magnitudes.Ranks,
    merge: Merge,
) -> "Tensor":
    """λ·τ of a slice."""
    merged = _merged(measurements, tensors, weights, options, ranks, merge)
    return merged.mul_(scaling.scale(options.scaling_factor, len(tensors), measurements))


def _merged(
    measurements: Sequence["Tensor"],
    tensors: Sequence["Tensor"],
    weights: Sequence[float],
    options: Options,
    ranks: magnitudes.Ranks,
    merge: Merge,
) -> "Tensor":
    bounds = magnitudes.find(ranks, measurements)
    kept = [magnitudes.keep(t, *bound) if bound else t for t, bound in zip(tensors, bounds, strict=True)]
    return merge(kept, weights, options.normalize_weights)
