"""What a strategy gets for each tensor: the weights of models, and its options, which may vary by tensor too."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from modelmerger.planning.tensor_weights import NOT_TIED, Given, numbers_by_tensor
from modelmerger.values.errors import Problem
from modelmerger.values.settings import Settings
from modelmerger.values.weights import varying_fields


@frozen(eq=False, repr=False)
class TensorNumbers:
    """What a strategy gets for one tensor."""

    key: tuple[float, ...]
    """All numbers; tensors with the same numbers get the same options."""
    weights: tuple[float, ...]
    """One a model."""
    options: Any
    """An instance of the strategy's `Options`; None where it has none."""
    model_options: tuple[Any, ...]
    """Instances of its `ModelOptions`, one a model; None where it has none."""


def strategy_numbers_by_tensor(
    settings: Settings, names: Sequence[str], merged: Sequence[str], tied: Mapping[str, str] = NOT_TIED
) -> tuple[dict[str, TensorNumbers], list[Problem]]:
    """What the strategy gets for each merged tensor, and problems with patterns.

    names, merged, tied: see `numbers_by_tensor`.
    """
    of_strategy = list(varying_fields(settings.strategy_options))
    of_models = [list(varying_fields(told)) for told in settings.model_options]
    given: list[Given] = [(f"models[{i}].weight", model.weight) for i, model in enumerate(settings.models)]
    given += [(f"options.{name}", value) for name, value in of_strategy]
    given += [(f"models[{i}].{name}", value) for i, fields in enumerate(of_models) for name, value in fields]
    lenient = settings.options.unmatched_patterns == "warning"
    found, problems = numbers_by_tensor(given, names, merged, tied, lenient=lenient)
    known: dict[tuple[float, ...], TensorNumbers] = {}
    for key in found.values():
        if key not in known:
            rest = iter(key)
            weights = tuple(next(rest) for _ in settings.models)
            options = _with(settings.strategy_options, of_strategy, rest)
            told = [_with(t, fields, rest) for t, fields in zip(settings.model_options, of_models, strict=True)]
            known[key] = TensorNumbers(key, weights, options, tuple(told))
    return {name: known[key] for name, key in found.items()}, problems


def _with(options: Any, fields: Sequence[tuple[str, Any]], numbers: Any) -> Any:
    """The options with a number in place of what the config has for each of these fields."""
    return evolve(options, **{name: next(numbers) for name, _ in fields}) if fields else options
