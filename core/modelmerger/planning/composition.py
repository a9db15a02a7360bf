"""Compositions: what a strategy or a plugin composes of the models of a merge, and the strategy as that may ask it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import evolve, frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.planning.matrices import kept_matrices, repeated_heads
from modelmerger.planning.tensor_numbers import TensorNumbers, strategy_numbers_by_tensor
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Composition, DeferredComposition, Gram
from modelmerger.values.errors import ConfigError, Problem, raise_errors
from modelmerger.values.settings import Settings


@frozen(eq=False, repr=False)
class StrategyOnUpdates:
    """The coefficients of a strategy for the updates of models, as `Coefficients` describes them."""

    hooks: Hooks
    """Those of the run."""
    settings: Settings
    """Those of the merge."""
    kept: frozenset[str]
    """Tensors of the base whose updates are left out."""
    notes: Sequence[Problem]
    """Warnings and notes about weights and options."""
    _numbers: Mapping[str, TensorNumbers]

    def __call__(self, tensor: str, shape: Sequence[int], gram: Gram) -> tuple[float, ...]:
        """One number a model.

        Raises `ConfigError` for weights that make no sense, `NumericError` where the result is undefined.
        """
        numbers = self._numbers[tensor]
        asked = numbers.weights, numbers.model_options, numbers.options
        find = self.hooks.strategy.find_coefficients
        try:
            found = find(*asked, shape=shape, tensor_name=tensor)
            if found is None:
                found = find(*asked, gram(), shape, tensor)
        except ConfigError as error:
            raise ConfigError(*(evolve(p, where=p.where or "models", tensor=tensor) for p in error.problems)) from error
        return (found or ())[: len(numbers.weights)]  # the base is an input too, but has no update

    def in_cores(self, tensor: str, shape: Sequence[int]) -> bool:
        """Whether the strategy sees the tensor otherwise than as a linear combination."""
        return self.hooks.strategy.view_of(tensor, shape, self._numbers[tensor].options) != "linear"

    def merge_cores(self, tensor: str, shape: Sequence[int], cores: Sequence[Any], noise: Sequence[float]) -> Any:
        """The merged core of a tensor, of the models whose weight is not 0; zeros where there are none."""
        numbers = self._numbers[tensor]
        counted = [model for model, weight in enumerate(numbers.weights) if weight]
        if not counted:
            return cores[0] * 0.0
        told = (numbers.weights, numbers.model_options)
        weights, model_options = ([of_all[model] for model in counted] for of_all in told)
        asked = [cores[model] for model in counted], [noise[model] for model in counted], weights, model_options
        return self.hooks.strategy.merge_cores(*asked, numbers.options, tensor, shape)


def compose(
    hooks: Hooks, checkpoints: Sequence[Checkpoint], settings: Settings
) -> Composition | DeferredComposition | None:
    """What the strategy or a plugin composes of the models; None where they are merged tensor by tensor.

    Raises `PluginError` for a strategy that speaks by composition alone and says nothing.
    """
    able = hooks.strategy.merges_updates and settings.base_model is not None
    coefficients = partial(_find_update_coefficients, hooks, checkpoints, settings) if able else None
    found = hooks.models.compose_model(checkpoints, settings, coefficients)
    if found is None and hooks.strategy.composes:
        raise hooks.strategy.silent_error()
    return found


def finish_composition(hooks: Hooks, found: Composition | DeferredComposition | None) -> Composition | None:
    """The same, no longer deferred: weights may be read for that."""
    if not isinstance(found, DeferredComposition):
        return found
    composition = hooks.models.finish_composition(found)
    return evolve(composition, notes=[*found.notes, *composition.notes])


def _find_update_coefficients(hooks: Hooks, checkpoints: Sequence[Checkpoint], settings: Settings) -> StrategyOnUpdates:
    """The strategy's coefficients for updates. Reads no weights of models."""
    hooks.strategy.finishes(settings.strategy_options, updates=True)  # refuses options that need merged weights
    kept, of_matrices = kept_matrices(checkpoints[-1], settings.options)
    changed = {name for model in checkpoints[: len(settings.models)] for name in model.changes} - kept
    numbers, of_numbers = strategy_numbers_by_tensor(
        settings,
        list(checkpoints[-1].tensors),
        [name for name in checkpoints[-1].tensors if name in changed],
        repeated_heads(checkpoints[-1]),
    )
    raise_errors(of_numbers, ConfigError, strict=settings.strict)
    return StrategyOnUpdates(hooks, settings, frozenset(kept), [*of_matrices, *of_numbers], numbers)


def check_same_base(models: Sequence[Checkpoint]) -> Iterator[Problem]:
    """One problem for each base that models bring beyond the first."""
    bases = {model.base.location.directory: (model, model.base) for model in models if model.base is not None}
    for directory, (model, base) in list(bases.items())[1:]:
        ours, (first, _) = next(iter(bases.items()))
        yield Problem(f"belongs to the base {directory}, and '{first.name}' to {ours}. Give {base.key}.", model.place)
