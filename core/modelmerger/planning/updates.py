"""Merges the updates of models, which are their differences from their base, in place of the models themselves."""

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.planning.matrices import kept_matrices, repeated_heads
from modelmerger.planning.tensor_numbers import TensorNumbers, strategy_numbers_by_tensor
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, InputError, Problem, raise_errors
from modelmerger.values.settings import Settings
from modelmerger.values.updates import Gram, MergedUpdates


@frozen(eq=False)
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


def find_update_coefficients(
    hooks: Hooks, checkpoints: Sequence[Checkpoint], settings: Settings
) -> StrategyOnUpdates | None:
    """The strategy's coefficients for updates; None where no plugin wants these models' updates merged.

    Reads no weights of models.
    """
    models = checkpoints[: len(settings.models)]
    strategy = hooks.strategy
    if all(model.base is None for model in models):
        return None
    if not hooks.models.wants_updates(checkpoints, settings, strategy.merges_updates):
        return None
    strategy.finishes(settings.strategy_options, updates=True)  # refuses options that need merged weights
    kept, of_matrices = kept_matrices(checkpoints[-1], settings.options)
    changed = {name for model in models for name in model.changes} - kept
    numbers, of_numbers = strategy_numbers_by_tensor(
        settings,
        list(checkpoints[-1].tensors),
        [name for name in checkpoints[-1].tensors if name in changed],
        repeated_heads(checkpoints[-1]),
    )
    raise_errors(of_numbers, ConfigError, strict=settings.strict)
    return StrategyOnUpdates(hooks, settings, frozenset(kept), [*of_matrices, *of_numbers], numbers)


def merge_updates(hooks: Hooks, checkpoints: Sequence[Checkpoint], settings: Settings) -> MergedUpdates | None:
    """The merged updates, for which weights may be read; None where full models are merged."""
    coefficients = find_update_coefficients(hooks, checkpoints, settings)
    if coefficients is None:
        return None
    merged = hooks.models.merge_updates(checkpoints, settings, coefficients)
    if merged is None:
        raise InputError(Problem("no plugin merges the updates of these models.", checkpoints[0].place))
    return merged


def check_same_base(models: Sequence[Checkpoint]) -> Iterator[Problem]:
    """One problem for each base that models bring beyond the first."""
    bases = {model.base.location.directory: (model, model.base) for model in models if model.base is not None}
    for directory, (model, base) in list(bases.items())[1:]:
        ours, (first, _) = next(iter(bases.items()))
        yield Problem(f"belongs to the base {directory}, and '{first.name}' to {ours}. Give {base.key}.", model.place)
