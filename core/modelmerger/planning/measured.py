"""What is measured of a tensor: what the strategy is told, and the elements that a round reads."""

from collections.abc import Sequence

from attrs import frozen

from modelmerger.hooks.arguments.of_strategies import Measured
from modelmerger.planning.slices import MEASURED, row_length
from modelmerger.values.tensor_plan import TensorPlan

Ranges = Sequence[tuple[int, int]] | None
"""Elements of a flattened tensor, in order: from the first to before the last; None for all of them."""


def told_of(tensor: TensorPlan, models: Sequence[int]) -> Measured:
    """What the strategy is told of a tensor. models: those that are inputs, by their index in the config."""
    return Measured(
        tensor_name=tensor.name,
        shape=tensor.shape,
        weights=[tensor.weights[i] for i in models],
        model_options=[tensor.model_options[i] for i in models],
        options=tensor.options,
    )


def whole_rows(tensor: TensorPlan) -> int:
    """What the ends of ranges must be multiples of: the length of a row for a rowwise strategy, or 1."""
    return row_length(tensor) if tensor.granularity == "rowwise" else 1


def block_length(tensor: TensorPlan) -> int:
    """Elements in a block that is measured: whole rows for a rowwise strategy."""
    row = whole_rows(tensor)
    return max(1, MEASURED // row) * row


@frozen(eq=False, repr=False)
class Wanted:
    """The elements that a round measures, laid end to end."""

    runs: Sequence[tuple[int, int]]
    """Ranges of the flattened tensor, in order."""

    @classmethod
    def of(cls, tensor: TensorPlan, ranges: Ranges) -> "Wanted":
        """The ranges that a strategy chose."""
        return cls([(0, tensor.elements)] if ranges is None else ranges)

    @property
    def elements(self) -> int:
        """How many there are."""
        return sum(stop - start for start, stop in self.runs)

    def between(self, first: int, last: int) -> list[tuple[int, int]]:
        """Ranges of the tensor: those of the elements `first` to `last`, counted as they are laid end to end."""
        found, begin = [], 0
        for start, stop in self.runs:
            low, high = max(first, begin), min(last, begin + stop - start)
            if low < high:
                found.append((start + low - begin, start + high - begin))
            begin += stop - start
        return found
