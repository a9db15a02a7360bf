"""Checks of strategies: what a config may say, and that mistakes in it are found before anything is read."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs

from modelmerger.config.resolve import resolve
from modelmerger.testing.checks.check import assert_finite, assert_refused
from modelmerger.testing.checks.strategy import Inputs, StrategyUnderTest
from modelmerger.values.errors import ConfigError

WRONG: list[Any] = [[[{"nobody": ["wants"]}]]]
"""A value that no option has."""


def check_options(strategy: StrategyUnderTest) -> None:
    """A wrong value of an option, and an unknown one, are refused with their place in the config."""
    for name in _names(strategy.declared.options):
        assert_refused(
            partial(_resolve, strategy, options={name: WRONG}),
            ConfigError,
            (f"options.{name}",),
            f"{strategy.name}: options.{name} must refuse {WRONG!r}. Give the field of Options a type.",
        )
    _check_frozen(strategy, "Options", strategy.declared.options, strategy.options)


def check_model_options(strategy: StrategyUnderTest) -> None:
    """A wrong value of a model's option is refused with its place in the config, `models[0].density`."""
    last = strategy.count - 1
    for name in _names(strategy.declared.model_options):
        assert_refused(
            partial(_resolve, strategy, model_options={name: WRONG}),
            ConfigError,
            (f"models[{last}].{name}",),
            f"{strategy.name}: models[{last}].{name} must refuse {WRONG!r}. Give the field of ModelOptions a type.",
        )
    _check_frozen(strategy, "ModelOptions", strategy.declared.model_options, strategy.model_options)


def check_number_of_models(strategy: StrategyUnderTest) -> None:
    """As many models as the traits allow are merged; fewer or more are refused, with the strategy's name."""
    fewest, most = strategy.traits.models
    for count in range(fewest, min(fewest + 2, most or fewest + 2) + 1):
        what = f"{strategy.name}: a merge of {count} model{'s' * (count > 1)}, which the traits allow,"
        assert_finite(
            strategy.merge(strategy.inputs(count), what), f"{what} must be finite. Else change Traits(models=…)."
        )
    wrong = [fewest - 1] * (fewest > 1) + ([most + 1] if most is not None else [])
    for count in wrong:
        assert_refused(
            partial(_resolve, strategy, count=count),
            ConfigError,
            (strategy.name,),
            f"{strategy.name}: {count} models must be refused, as the traits say, with the name of the strategy.",
        )


def check_base_model(strategy: StrategyUnderTest) -> None:
    """Without a base model, a strategy that wants one is refused with the key, and any other merges."""
    if strategy.traits.wants_base:
        sentence = f"{strategy.name}: a config without base_model must be refused, and the error must name that key."
        assert_refused(partial(_resolve, strategy, base=False), ConfigError, ("base_model",), sentence)
        return
    what = (
        f"{strategy.name}: a merge without a base model, which the traits do not ask for (else declare "
        "Traits(needs_base=True)),"
    )
    given = strategy.inputs()
    strategy.merge(Inputs(given.models, None), what)


def _names(cls: type | None) -> list[str]:
    return [] if cls is None else [declared.name for declared in attrs.fields(cls)]


def _check_frozen(strategy: StrategyUnderTest, name: str, cls: type | None, given: Mapping[str, Any]) -> None:
    """Raises `AssertionError` for a class whose instances can be changed, which all threads would see."""
    if cls is None or not (names := _names(cls)):
        return
    if any(field.default is attrs.NOTHING and field.name not in given for field in attrs.fields(cls)):
        return  # which any merge of the checks says
    instance = cls(**given)
    try:
        setattr(instance, names[0], getattr(instance, names[0]))
    except attrs.exceptions.FrozenError:
        return
    raise AssertionError(
        f"{strategy.name}: {name} can be changed, and one instance serves all tensors and threads. "
        "Declare it with attrs.frozen."
    )


def _resolve(
    strategy: StrategyUnderTest,
    *,
    options: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
    count: int | None = None,
    base: bool = True,
) -> None:
    """Reads a config as a merge does. model_options: of the last model."""
    models = [{"path": f"./{i}", **strategy.model_options} for i in range(strategy.count if count is None else count)]
    models[-1].update(model_options or {})
    config: dict[str, Any] = {"strategy": strategy.plugin, "models": models}
    config["options"] = {**strategy.options, **(options or {})}
    if strategy.traits.wants_base and base:
        config["base_model"] = "./base"
    resolve(config)
