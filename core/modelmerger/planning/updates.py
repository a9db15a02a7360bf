"""Merging what models change of their base, in place of the models: for adapters, which become one adapter or one full model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import evolve, field, frozen

from modelmerger.planning.matrices import kept_matrices, tied_heads
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, InputError, ModelCompatibilityError, Problem, raise_errors
from modelmerger.values.weights import weights_by_tensor

if TYPE_CHECKING:
    from modelmerger.hooks.calls import Hooks
    from modelmerger.values.settings import Settings

Written = Literal["model", "adapter"]
Gram = Callable[[], Sequence[Sequence[float]]]
"""Makes the Gram matrix of one tensor's updates, one row a model."""
LARGE_ERROR = 0.1
ADVICE = "Set peft_config.merge_adapters: false, which folds each adapter into its base"


@frozen(eq=False)
class MergedUpdates:
    """What a plugin made of models that change a base.

    checkpoint: the result, whose tensors are written as they are read. dtypes: the dtype that each of them is written in.
    writes: whether that is a whole model or an adapter. documents: files that the result consists of beside its weights.
    relative_errors: changed tensor of the base → ‖written − exact‖/‖exact‖ of its update. relative_error: that of all together.
    memory: bytes that are held at a time while it is read, by one worker.
    """

    checkpoint: Checkpoint
    dtypes: Mapping[str, str]
    writes: Written
    documents: Mapping[str, bytes] = field(factory=dict)
    relative_errors: Mapping[str, float] = field(factory=dict)
    relative_error: float = 0.0
    memory: int = 0
    notes: Sequence[Problem] = ()


@frozen(eq=False)
class Coefficients:
    """The strategy, as it acts on updates: a merged update is Σ cᵢ·updateᵢ, and these are the cᵢ.

    kept: tensors of the base that options keep from being merged, whose updates are left out. notes: on weights and options.
    """

    hooks: "Hooks"
    settings: "Settings"
    kept: frozenset[str]
    notes: Sequence[Problem]
    _weights: Mapping[str, tuple[float, ...]]

    def __call__(self, tensor: str, shape: Sequence[int], gram: Gram) -> tuple[float, ...]:
        """One number a model, for a tensor of the base and its shape. `gram` is called where the strategy asks for it.

        Raises `ConfigError` for weights that make no sense, `NumericError` where the result is undefined.
        """
        weights = self._weights[tensor]
        operations = [model.operation for model in self.settings.models]
        options = self.settings.strategy_options
        try:
            found = self.hooks.find_coefficients(weights, operations, options, shape=shape, tensor_name=tensor)
            if found is None:
                found = self.hooks.find_coefficients(weights, operations, options, gram(), shape, tensor)
        except ConfigError as error:
            raise ConfigError(*(evolve(p, where=p.where or "models", tensor=tensor) for p in error.problems)) from error
        return (found or ())[: len(weights)]  # the base, where it counts, has no update


def merging_updates(hooks: "Hooks", checkpoints: Sequence[Checkpoint], settings: "Settings") -> Coefficients | None:
    """How the strategy merges updates, where `merge_adapters` asks for it and there are adapters; else None. Reads no weights.

    Raises `ModelCompatibilityError` for models that are no adapters of one base, `ConfigError` for a strategy that needs full models.
    """
    models = checkpoints[: len(settings.models)]
    if not (settings.peft and settings.peft.merge_adapters) or all(model.base is None for model in models):
        return None
    raise_errors(list(_misfits(models)), ModelCompatibilityError)
    strategy = hooks.strategy
    if not strategy.merges_updates:
        message = f"{strategy.provider.name} works on full models and cannot merge the updates of adapters. {ADVICE}"
        raise ConfigError(Problem(message, "peft_config.merge_adapters"))
    return _coefficients(hooks, checkpoints[-1], models, settings)


def merge_updates(hooks: "Hooks", checkpoints: Sequence[Checkpoint], settings: "Settings") -> MergedUpdates | None:
    """The merged updates, as `merging_updates` says; the adapters' factors are read, since they decide its ranks. None: full models are merged."""
    coefficients = merging_updates(hooks, checkpoints, settings)
    if coefficients is None:
        return None
    merged = hooks.merge_updates(checkpoints, settings, coefficients)
    if merged is None:
        place = checkpoints[0].place
        raise InputError(Problem(f"no plugin merges the updates of these models. {ADVICE}.", place))
    return merged


def _coefficients(hooks: "Hooks", base: Checkpoint, models: Sequence[Checkpoint], settings: "Settings") -> Coefficients:
    kept, of_matrices = kept_matrices(base, settings.options)
    changed = {name for model in models for name in model.changes} - kept
    weights, of_weights = weights_by_tensor(
        [model.weight for model in settings.models],
        list(base.tensors),
        [name for name in base.tensors if name in changed],
        tied_heads(base),
    )
    raise_errors(of_weights, ConfigError)
    return Coefficients(hooks, settings, frozenset(kept), [*of_matrices, *of_weights], weights)


def _misfits(models: Sequence[Checkpoint]) -> Iterator[Problem]:
    for model in models:
        if model.base is None:
            yield Problem(f"is a full model, and merge_adapters: true merges adapters alone. {ADVICE}.", model.place)
    yield from different_bases(models)


def different_bases(models: Sequence[Checkpoint]) -> Iterator[Problem]:
    """One for each base beyond the first, where models bring some."""
    bases = {model.base.location.path: model for model in models if model.base is not None}
    for path, model in list(bases.items())[1:]:
        ours, first = next(iter(bases.items()))
        message = f"belongs to the base {path}, and '{first.name}' to {ours}. Give peft_config.base_model_path."
        yield Problem(message, model.place)


def note_on_error(relative_error: float) -> Problem:
    """How far the merged updates are from what was asked for; a warning above 10 %."""
    message = f"the merged updates differ from the exact merge by {relative_error:.2g} of their norm"
    if relative_error <= LARGE_ERROR:
        return Problem(f"{message}.", "updates", severity="note")
    advice = "Give a higher rank, or merge_method: linear, which is exact"
    return Problem(f"{message}: more than 10 %. {advice}.", "updates", severity="warning")
