"""The coefficients of a linear strategy as a function of the numbers that are found, and their derivatives."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen
from modelmerger import Checkpoint, ConfigError, MergePlan, Problem

from modelmerger_plugins.tune.coordinates import Space, top_of
from modelmerger_plugins.tune.opened import Opened

if TYPE_CHECKING:
    import numpy as np

Find = Callable[[Sequence[float], Sequence[Any], Any, tuple[int, ...]], Sequence[float] | None]
"""Asks the strategy: weights, options of models, options, shape → a coefficient an input."""
Weigh = Callable[[Sequence[float], Sequence[Any], Any], Sequence[float]]
"""The same of terms: weights and options of the models that are not left out, options → a coefficient a term, and then
that of the base."""
NO_TERMS: Mapping[str, Weigh] = MappingProxyType({})
"""Of a strategy that is linear in the models."""
_STEP = 1e-4
"""Of the central difference. Coefficients are sums, products and quotients of numbers near 1, in float64."""


@frozen(eq=False)
class Linear:
    """Coefficients of all tensors at some numbers, and how they change with them."""

    values: "Mapping[str, np.ndarray]"
    """Tensor → its coefficients, as `Source` has them."""
    slopes: "Mapping[str, tuple[list[int], np.ndarray]]" = field(repr=False)
    """Tensor → the coordinates that it has a number of, and the derivatives: (coordinates, coefficients)."""
    _size: int

    def pulled(self, gradients: "Mapping[str, np.ndarray]") -> "np.ndarray":
        """The derivatives for the numbers, given those for the coefficients: (coordinates,), float64."""
        import numpy as np

        found = np.zeros(self._size)
        for name, (own, slopes) in self.slopes.items():
            if own:
                np.add.at(found, own, slopes @ gradients[name])
        return found


@frozen(eq=False)
class Coefficients:
    """What each tensor of a merge is made of, whatever the numbers are."""

    plan: MergePlan
    """At the start."""
    space: Space
    """The numbers that are found."""
    _find: Find
    _own: Mapping[str, Sequence[tuple[int, float]]]
    """Tensor → the coordinates that it has a number of, and the share of each."""
    _terms: Mapping[str, Weigh]
    """Tensor that the strategy splits into terms → what weighs these."""
    _updates: bool
    """Whether the base counts once, whatever the coefficients are."""

    @classmethod
    def of(
        cls,
        plan: MergePlan,
        space: Space,
        find: Find,
        terms: Mapping[str, Weigh] = NO_TERMS,
        *,
        updates: bool = False,
    ) -> "Coefficients":
        """Raises `ConfigError` where the strategy is not linear in the numbers before anything is read.

        terms: what weighs the terms of each tensor that is not a combination of the models. updates: whether what the
        models change of their base is merged, and added to it.
        """
        for tensor in plan.tensors:
            merged = tensor.action == "merge" and (updates or tensor.name not in terms)
            if merged or (tensor.action == "combine" and tensor.coefficients is None):
                raise no_gradient(f"{plan.strategy} is no linear combination with coefficients that are known before")
        if plan.composed:
            raise no_gradient("the output is a composition of the models, such as merged updates of adapters")
        for mark in space.marks:
            if len(top_of(mark.place)) > 3 or mark.place[0] not in ("models", "options"):
                raise no_gradient(f"{mark.where} is a number of a merge within the merge")
        own: dict[str, list[tuple[int, float]]] = {tensor.name: [] for tensor in plan.tensors}
        for number, coordinate in enumerate(space.coordinates):
            shares = space.shares[coordinate.mark]
            for name in coordinate.tensors:
                own[name].append((number, shares[name]))
        return cls(plan, space, find, own, terms, updates)

    @classmethod
    def of_opened(cls, opened: Opened, terms: Mapping[str, Weigh] = NO_TERMS) -> "Coefficients":
        """Those of a config with its models open. Raises `ConfigError` as `of` does."""
        strategy = opened.read.hooks.strategy
        return cls.of(
            opened.plan,
            opened.space,
            lambda w, m, o, s: strategy.find_coefficients(w, m, o, shape=s),
            terms,
            updates=opened.updates,
        )

    def inputs(self, checkpoints: Sequence[Checkpoint]) -> dict[str, list[int]]:
        """The checkpoints that each tensor is made of, whatever the numbers are: all of them where it is merged."""
        found = {}
        for tensor in self.plan.tensors:
            merged = tensor.action in ("combine", "merge")
            found[tensor.name] = list(range(len(checkpoints))) if merged else list(tensor.inputs[:1])
            if lacks := [i for i in found[tensor.name] if tensor.name_in(i) not in checkpoints[i].tensors]:
                raise no_gradient(f"'{tensor.name}' is missing in {checkpoints[lacks[0]].name}")
        return found

    def at(self, vector: Sequence[float]) -> Linear:
        """The coefficients at these numbers."""
        import numpy as np

        values: dict[str, np.ndarray] = {}
        slopes: dict[str, tuple[list[int], np.ndarray]] = {}
        known: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
        for tensor in self.plan.tensors:
            own = self._own[tensor.name]
            if tensor.action not in ("combine", "merge"):
                values[tensor.name], slopes[tensor.name] = np.ones(1), ([], np.zeros((0, 1)))
                continue
            split = tensor.name if tensor.action == "merge" else ""  # terms are weighed in a way of their own
            key = split, tensor.shape, tuple((self._mark(i), vector[i], share) for i, share in own), tensor.weights
            if key not in known:
                here = self._moved(tensor, vector, own)
                beside = [[self._moved(tensor, vector, own, i, step) for step in (_STEP, -_STEP)] for i, _ in own]
                sloped = [(after - before) / (2 * _STEP) for after, before in beside]
                known[key] = here, np.array(sloped).reshape(len(own), len(here))
            values[tensor.name], slopes[tensor.name] = known[key][0], ([i for i, _ in own], known[key][1])
        return Linear(values, slopes, len(vector))

    def _mark(self, coordinate: int) -> int:
        return self.space.coordinates[coordinate].mark

    def _moved(
        self, tensor: Any, vector: Sequence[float], own: Sequence[tuple[int, float]], moved: int = -1, step: float = 0.0
    ) -> "np.ndarray":
        """The coefficients where one of the numbers is moved by a step."""
        import numpy as np

        weights, options, of_models = list(tensor.weights), tensor.options, list(tensor.model_options)
        for number, share in own:
            mark = self.space.marks[self._mark(number)]
            change = share * (vector[number] + (step if number == moved else 0.0) - mark.start)
            _, *rest = top_of(mark.place)
            if len(rest) == 1:
                options = evolve(options, **{str(rest[0]): getattr(options, str(rest[0])) + change})
            elif rest[1] == "weight":
                weights[int(rest[0])] += change
            else:
                told, key = of_models[int(rest[0])], str(rest[1])
                of_models[int(rest[0])] = evolve(told, **{key: getattr(told, key) + change})
        if tensor.action == "merge":
            counted = [i for i in tensor.inputs if i < len(weights)]
            weigh, models = self._terms[tensor.name], len(self.plan.models) - 1
            of_terms = weigh([weights[i] for i in counted], [of_models[i] for i in counted], options)
            return np.array([*[0.0] * models, *of_terms])
        found = self._find(weights, of_models, options, tensor.shape)
        if found is None:
            raise no_gradient("the strategy says no coefficients before the models are read")
        if self._updates:
            return np.array([*found[: len(weights)], 1.0])
        found = [*found, *[0.0] * (len(self.plan.models) - len(found))]  # a base that the strategy does not want
        return np.array([*found[:-1], sum(found)])


def no_gradient(reason: str) -> ConfigError:
    """The error of a merge that gradient descent cannot tune."""
    return ConfigError(
        Problem(f"there is no gradient: {reason}. Set search.method to tpe or cma", "tune.search.method")
    )
