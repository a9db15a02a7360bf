"""What becomes of each tensor: which inputs it is made of, with what coefficients, and in what arithmetic."""

from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.planning.alignment import Aligned, align
from modelmerger.planning.matrices import kept_matrices, repeated_heads
from modelmerger.planning.measured import Wanted, told_of, whole_rows
from modelmerger.planning.tensor_numbers import TensorNumbers, strategy_numbers_by_tensor
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Composition
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import ConfigError, ModelCompatibilityError, Problem, raise_errors
from modelmerger.values.settings import Settings
from modelmerger.values.tensor_plan import Action, TensorPlan
from modelmerger.values.traits import Granularity, View

MOST_IN_FLOAT32 = {"F16": 3, "BF16": 31}
"""So many inputs may be added up in float32 where a dtype of p significant bits is written: each of n coefficients,
products and sums is rounded by 2⁻²⁴, and (n + 1)·2⁻²³ ≤ 2⁻ᵖ·2⁻¹⁰ keeps the result within half a unit in the last place
× (1 + 2⁻¹⁰)."""

Inputs = tuple[tuple[int, ...], tuple[float, ...] | None]
"""Checkpoints, and one coefficient for each; None where the coefficients are not known yet, or there are none."""
_NOTHING_LEFT = "every coefficient of this merge is zero, so nothing would be left. Give a weight other than 0."


def plan_merged_tensors(
    hooks: Hooks, checkpoints: Sequence[Checkpoint], settings: Settings, dtypes: Mapping[str, str]
) -> tuple[list[TensorPlan], list[Problem]]:
    """The tensors of a merge of these checkpoints, with warnings and notes.

    dtypes: in which floating tensors are written, by name; those without one as the settings say. Raises
    `ModelCompatibilityError` with every tensor that does not fit, `ConfigError` for weights that make no sense.
    """
    donor = checkpoints[settings.donor]
    aligned, notes = align(checkpoints, settings.donor, settings.options.missing_tensors)
    raise_errors(notes, ModelCompatibilityError)
    kept, of_matrices = kept_matrices(donor, settings.options)
    aligned = [evolve(tensor, taken=True) if tensor.name in kept else tensor for tensor in aligned]
    told, of_weights = strategy_numbers_by_tensor(
        settings,
        [tensor.name for tensor in aligned],
        [tensor.name for tensor in aligned if not tensor.taken],
        repeated_heads(donor),
    )
    raise_errors(of_weights, ConfigError, strict=settings.strict)
    planner = _TensorPlanner(hooks, checkpoints, settings, told, dtypes)
    return [planner.plan(tensor) for tensor in aligned], [*notes, *of_matrices, *of_weights]


def plan_composed_tensors(composition: Composition, settings: Settings, dtypes: Mapping[str, str]) -> list[TensorPlan]:
    """The tensors of a composition, which are written as they are read. dtypes: as in `plan_merged_tensors`."""
    return [_composed_tensor(composition, name, settings, dtypes) for name in composition.checkpoint.tensors]


def _composed_tensor(composition: Composition, name: str, settings: Settings, dtypes: Mapping[str, str]) -> TensorPlan:
    """A tensor that is written as it is read. One that is not floating point keeps its bits."""
    info = composition.checkpoint.tensors[name]
    wanted = dtypes.get(name) if DTYPES[info.dtype].family == "float" else None
    dtype = wanted or composition.dtypes.get(name) or settings.written(info)
    if info.elements == 0 or DTYPES[info.dtype].family != "float":
        return TensorPlan(name, dtype, info.shape, "copy", (0,), None, "F32")
    compute = "F64" if info.dtype == "F64" or dtype in ("F32", "F64") else "F32"
    return TensorPlan(name, dtype, info.shape, "take", (0,), (1.0,), compute)


@frozen(eq=False, repr=False)
class _TensorPlanner:
    hooks: Hooks
    checkpoints: Sequence[Checkpoint]
    settings: Settings
    told: Mapping[str, TensorNumbers]
    dtypes: Mapping[str, str]
    _known: dict[tuple[tuple[int, ...], tuple[float, ...], bool], Inputs] = field(factory=dict)

    def plan(self, tensor: Aligned) -> TensorPlan:
        info = tensor.info
        told = self.told.get(tensor.name)
        view: View = "linear"
        inputs: tuple[int, ...] = (tensor.source,)
        coefficients: tuple[float, ...] | None = (1.0,)
        if told is not None:
            view = self.hooks.strategy.view_of(tensor.name, info.shape, told.options)
            inputs, coefficients = self._inputs(tensor, told, view == "linear")
        if tensor.exact or info.elements == 0:
            others = () if info.elements == 0 else tuple(i for i in inputs if i != tensor.source)
            dtype = info.dtype if tensor.exact else self._written(tensor)
            return TensorPlan(
                tensor.name, dtype, info.shape, "copy", (tensor.source, *others), None, "F32", tensor.renames
            )
        dtype = self._written(tensor)
        stored = {self.checkpoints[i].tensors[tensor.name_in(i)].dtype for i in inputs}
        action: Action = "take" if told is None else "combine" if view == "linear" else "merge"
        many = action == "combine" and len(inputs) > MOST_IN_FLOAT32.get(dtype, 511)
        compute = "F64" if dtype in ("F32", "F64") or "F64" in stored or many else "F32"
        common = (tensor.name, dtype, info.shape, action, inputs, coefficients, compute, tensor.renames)
        if told is None:
            return TensorPlan(*common)
        granularity: Granularity = view if view != "linear" else "elementwise"
        measured = info.elements if action == "combine" and coefficients is None else 0
        of_strategy = (told.weights, told.options, told.model_options, granularity)
        planned = TensorPlan(*common, *of_strategy, measured=measured)
        if action == "combine":
            return planned
        return self._measured(planned, [i for i in inputs if i < len(self.settings.models)])

    def _measured(self, planned: TensorPlan, models: Sequence[int]) -> TensorPlan:
        """The plan of a tensor with its rounds. It is never measured where no model has a weight."""
        if not models:
            return planned
        strategy, given = self.hooks.strategy, told_of(planned, models)
        rounds = strategy.rounds_for(given)
        chosen = (strategy.choose_ranges(given, number, (), whole_rows(planned)) for number in range(rounds))
        measured = sum(Wanted.of(planned, ranges).elements for ranges in chosen)
        return evolve(planned, rounds=rounds, measured=measured)

    def _written(self, tensor: Aligned) -> str:
        return self.dtypes.get(tensor.name) or self.settings.written(tensor.info)

    def _inputs(self, tensor: Aligned, told: TensorNumbers, linear: bool) -> Inputs:
        """Which checkpoints are read, and with what coefficients where these are known before anything is read."""
        key = tensor.info.shape, told.key, linear
        if key not in self._known:
            try:
                self._known[key] = self._ask(tensor.info.shape, told, linear)
            except ConfigError as error:
                raise ConfigError(
                    *(evolve(p, where=p.where or "models", tensor=tensor.name) for p in error.problems)
                ) from error
        return self._known[key]

    def _ask(self, shape: tuple[int, ...], told: TensorNumbers, linear: bool) -> Inputs:
        models, strategy = self.settings.models, self.hooks.strategy
        base = (len(models),) if strategy.traits.wants_base else ()
        if not linear:
            inputs = tuple(i for i, weight in enumerate(told.weights) if weight != 0)
            if not inputs and not base:
                raise ConfigError(_NOTHING_LEFT)
            return inputs + base, None
        found = strategy.find_coefficients(told.weights, told.model_options, told.options, shape=shape)
        if found is None:
            return (*range(len(models)), *base), None
        pairs = [(i, c) for i, c in zip((*range(len(models)), *base), found, strict=True) if c != 0]
        if not pairs:
            raise ConfigError(_NOTHING_LEFT)
        return tuple(i for i, _ in pairs), tuple(c for _, c in pairs)
