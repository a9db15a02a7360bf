"""How far numbers are from the start: what a search pays for, so that lines move nothing that they say nothing of."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen
from modelmerger import ConfigError

from modelmerger_plugins.tune.coefficients import Coefficients, Linear
from modelmerger_plugins.tune.evaluating import ByCoefficients
from modelmerger_plugins.tune.opened import Opened

if TYPE_CHECKING:
    import numpy as np

_STILL = 1e-9
"""A derivative that is rounding alone: of the coefficient of a model without a number."""


class Distance(Protocol):
    """A mean of squares, and its derivatives."""

    def at(self, vector: Sequence[float]) -> float:
        """The distance of these numbers from the start."""

    def slopes(self, vector: Sequence[float]) -> "np.ndarray":
        """Its derivatives there: (coordinates,), float64."""


@frozen
class OfNumbers:
    """The mean squared distance of the numbers as the config has them."""

    start: Sequence[float]
    """Where the search begins."""

    def at(self, vector: Sequence[float]) -> float:
        """The distance of these numbers from the start."""
        return sum((one - other) ** 2 for one, other in zip(vector, self.start, strict=True)) / max(1, len(self.start))

    def slopes(self, vector: Sequence[float]) -> "np.ndarray":
        """Its derivatives there."""
        import numpy as np

        away = np.array(vector) - np.array(self.start)
        return np.asarray(2 * away / max(1, len(self.start)))


@frozen(eq=False)
class OfCoefficients:
    """The mean squared distance of what multiplies the models, or their differences from the base, tensor by tensor.

    So it is about the merge, and not about how a config divides a coefficient into a weight and a scaling factor, nor
    how many tensors share a number. Coefficients that no number moves do not count.
    """

    coefficients: Coefficients
    """Those of the merge."""
    start: Linear
    """Where the search begins."""
    _models: Mapping[str, int] = field(init=False)
    moved: int = field(init=False)
    """How many coefficients the numbers move."""

    @_models.default
    def _of_plan(self) -> dict[str, int]:
        return {tensor.name: len(tensor.weights) for tensor in self.coefficients.plan.tensors}

    @moved.default
    def _count(self) -> int:
        import numpy as np

        of_tensors = (self._by_model(name, slopes) for name, (_, slopes) in self.start.slopes.items())
        return max(1, sum(int((np.abs(one) > _STILL).any(axis=0).sum()) for one in of_tensors))

    def at(self, vector: Sequence[float]) -> float:
        """The distance of these numbers from the start."""
        return sum(float(one @ one) for one in self._changes(self.coefficients.at(vector)).values()) / self.moved

    def slopes(self, vector: Sequence[float]) -> "np.ndarray":
        """Its derivatives there."""
        import numpy as np

        here = self.coefficients.at(vector)
        found = np.zeros(len(vector))
        for name, change in self._changes(here).items():
            own, slopes = here.slopes[name]
            if own:
                np.add.at(found, own, self._by_model(name, slopes) @ change * 2 / self.moved)
        return found

    def _changes(self, here: Linear) -> "dict[str, np.ndarray]":
        return {name: self._by_model(name, here.values[name] - start) for name, start in self.start.values.items()}

    def _by_model(self, name: str, given: "np.ndarray") -> "np.ndarray":
        """What `Source` has along the last axis, as a coefficient for each model, without the base."""
        import numpy as np

        if given.shape[-1] > self._models[name]:
            return given[..., :-1]
        return np.concatenate([given[..., :-1], given[..., -1:] - given[..., :-1].sum(-1, keepdims=True)], -1)


def distance_of(opened: Opened, evaluator: object = None) -> Distance:
    """Of coefficients where the strategy is linear, else of the numbers themselves.

    evaluator: what measures the merge; one by coefficients has them already.
    """
    try:
        known = evaluator.coefficients if isinstance(evaluator, ByCoefficients) else Coefficients.of_opened(opened)
        return OfCoefficients(known, known.at(opened.space.start))
    except ConfigError:
        return OfNumbers(opened.space.start)
