"""What becomes of each tensor: which inputs it is made of, with what coefficients, and in what arithmetic."""

from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.planning.alignment import Aligned, align
from modelmerger.planning.matrices import kept_matrices, repeated_heads
from modelmerger.planning.tensor_weights import weights_by_tensor
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import ConfigError, ModelCompatibilityError, Problem, raise_errors
from modelmerger.values.plan import Action, TensorPlan
from modelmerger.values.settings import Settings
from modelmerger.values.updates import MergedUpdates

MOST_IN_FLOAT32 = {"F16": 3, "BF16": 31}
"""So many inputs may be added up in float32 where a dtype of p significant bits is written: each of n coefficients,
products and sums is rounded by 2⁻²⁴, and (n + 1)·2⁻²³ ≤ 2⁻ᵖ·2⁻¹⁰ keeps the result within half a unit in the last place
× (1 + 2⁻¹⁰)."""

Inputs = tuple[tuple[int, ...], tuple[float, ...] | None]
"""Checkpoints, and one coefficient for each; None where the coefficients are not known yet, or there are none."""
_NOTHING_LEFT = "every coefficient of this merge is zero, so nothing would be left. Give a weight other than 0."


def plan_merged_tensors(
    hooks: Hooks, checkpoints: Sequence[Checkpoint], settings: Settings
) -> tuple[list[TensorPlan], list[Problem]]:
    """The tensors of a merge of these checkpoints, with warnings and notes.

    Raises `ModelCompatibilityError` with every tensor that does not fit, `ConfigError` for weights that make no sense.
    """
    donor = checkpoints[settings.donor]
    aligned, notes = align(checkpoints, settings.donor, settings.options.missing_tensors)
    raise_errors(notes, ModelCompatibilityError)
    kept, of_matrices = kept_matrices(donor, settings.options)
    aligned = [evolve(tensor, taken=True) if tensor.name in kept else tensor for tensor in aligned]
    weights, of_weights = weights_by_tensor(
        [model.weight for model in settings.models],
        [tensor.name for tensor in aligned],
        [tensor.name for tensor in aligned if not tensor.taken],
        repeated_heads(donor),
    )
    raise_errors(of_weights, ConfigError)
    planner = _TensorPlanner(hooks, checkpoints, settings, weights)
    return [planner.plan(tensor) for tensor in aligned], [*notes, *of_matrices, *of_weights]


def plan_read_tensors(updates: MergedUpdates) -> list[TensorPlan]:
    """The tensors of merged updates, which are written as they are read."""
    return [_read_tensor(updates, name) for name in updates.checkpoint.tensors]


def _read_tensor(updates: MergedUpdates, name: str) -> TensorPlan:
    """A tensor that is written as it is read. One that is not floating point keeps its bits."""
    info, dtype = updates.checkpoint.tensors[name], updates.dtypes[name]
    if info.elements == 0 or DTYPES[info.dtype].family != "float":
        return TensorPlan(name, dtype, info.shape, "copy", (0,), None, "F32")
    compute = "F64" if info.dtype == "F64" or dtype in ("F32", "F64") else "F32"
    return TensorPlan(name, dtype, info.shape, "take", (0,), (1.0,), compute)


@frozen(eq=False)
class _TensorPlanner:
    hooks: Hooks
    checkpoints: Sequence[Checkpoint]
    settings: Settings
    weights: Mapping[str, tuple[float, ...]]
    _known: dict[tuple[tuple[int, ...], tuple[float, ...]], Inputs] = field(factory=dict)

    def plan(self, tensor: Aligned) -> TensorPlan:
        info = tensor.info
        weights = self.weights.get(tensor.name, ())
        inputs, coefficients = ((tensor.source,), (1.0,)) if tensor.taken else self._inputs(tensor, weights)
        if tensor.exact or info.elements == 0:
            others = () if info.elements == 0 else tuple(i for i in inputs if i != tensor.source)
            dtype = info.dtype if tensor.exact else self.settings.options.written(info.dtype)
            return TensorPlan(
                tensor.name, dtype, info.shape, "copy", (tensor.source, *others), None, "F32", tensor.renames
            )
        dtype = self.settings.options.written(info.dtype)
        stored = {self.checkpoints[i].tensors[tensor.name_in(i)].dtype for i in inputs}
        action: Action = "take" if tensor.taken else "combine" if self.hooks.strategy.linear else "merge"
        many = action == "combine" and len(inputs) > MOST_IN_FLOAT32.get(dtype, 511)
        compute = "F64" if dtype in ("F32", "F64") or "F64" in stored or many else "F32"
        return TensorPlan(
            tensor.name, dtype, info.shape, action, inputs, coefficients, compute, tensor.renames, weights
        )

    def _inputs(self, tensor: Aligned, weights: tuple[float, ...]) -> Inputs:
        """Which checkpoints are read, and with what coefficients if these are known before anything is read."""
        key = tensor.info.shape, weights
        if key not in self._known:
            try:
                self._known[key] = self._ask(*key)
            except ConfigError as error:
                raise ConfigError(
                    *(evolve(p, where=p.where or "models", tensor=tensor.name) for p in error.problems)
                ) from error
        return self._known[key]

    def _ask(self, shape: tuple[int, ...], weights: tuple[float, ...]) -> Inputs:
        models = self.settings.models
        base = (len(models),) if self.hooks.strategy.traits.needs_base else ()
        if not self.hooks.strategy.linear:
            inputs = tuple(i for i, weight in enumerate(weights) if weight != 0) + base
            if not inputs:
                raise ConfigError(_NOTHING_LEFT)
            return inputs, None
        found = self.hooks.strategy.find_coefficients(
            weights,
            self.settings.model_options,
            self.settings.strategy_options,
            shape=shape,
        )
        if found is None:
            return (*range(len(models)), *base), None
        pairs = [(i, c) for i, c in zip((*range(len(models)), *base), found, strict=True) if c != 0]
        if not pairs:
            raise ConfigError(_NOTHING_LEFT)
        return tuple(i for i, _ in pairs), tuple(c for _, c in pairs)
