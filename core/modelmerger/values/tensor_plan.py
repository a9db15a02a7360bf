"""What becomes of one tensor: pure data, a part of the plan of a merge."""

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Any, Literal

from attrs import frozen

from modelmerger.values.traits import Granularity
from modelmerger.values.weights import varying_fields

Action = Literal["combine", "merge", "take", "copy"]
""""combine" adds up coefficient · input; "merge" asks the strategy's `merge_tensor`; "take" takes one model's numbers,
checked for NaN and infinity as merged ones are; "copy" takes the donor's bits."""
NO_RENAMES: Mapping[int, str] = MappingProxyType({})


@frozen
class TensorPlan:
    """What becomes of one tensor."""

    name: str
    """In the output."""
    dtype: str
    """What it is written in, as safetensors spells it ("BF16")."""
    shape: tuple[int, ...]
    """One number a dimension, () for a scalar."""
    action: Action
    """How its numbers are made."""
    inputs: tuple[int, ...]
    """Which checkpoints are read, by their number."""
    coefficients: tuple[float, ...] | None
    """One an input; None where they follow from a measurement, or where there are none."""
    compute: str
    """The dtype of the arithmetic, "F32" or "F64"."""
    renames: Mapping[int, str] = NO_RENAMES
    """Number of a checkpoint → the name under which that has the tensor, if another."""
    weights: tuple[float, ...] = ()
    """The tensor's own, one a model of the config; none where they do not count."""
    options: Any = None
    """The strategy's, with the numbers of this tensor; None where the strategy is not asked."""
    model_options: tuple[Any, ...] = ()
    """Those of each model of the config, with the numbers of this tensor; none where the strategy has none."""
    granularity: Granularity = "elementwise"
    """Of the slices that the strategy sees; "elementwise" where it sees none."""
    rounds: int = 0
    """How often the strategy measures it before it is merged, at most."""
    measured: int = 0
    """Of how many of its elements these rounds are expected to read the inputs, all rounds together."""

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    def name_in(self, checkpoint: int) -> str:
        """The name under which a checkpoint has the tensor."""
        return self.renames.get(checkpoint, self.name)

    def varying(self) -> dict[str, Any]:
        """The numbers of this tensor among the options that may vary by tensor, where a strategy has any."""
        own = dict(varying_fields(self.options))
        of_models = [dict(varying_fields(told)) for told in self.model_options]
        return ({"options": own} if own else {}) | ({"model_options": of_models} if any(of_models) else {})
