"""One function for each kind of plugins that runs all of its checks."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from modelmerger.testing.checks.average import NO_CONFIG
from modelmerger.testing.checks.running import NONE, Expected, run_checks
from modelmerger.testing.checks.stand_in import stand_in
from modelmerger.testing.checks.strategy import Promise
from modelmerger.values.settings import Settings, ValidationSettings
from modelmerger.values.subject import Subject


def check_strategy(
    strategy: Any,
    *,
    options: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
    promises: Collection[Promise] = (),
    expected_failures: Expected = NONE,
) -> None:
    """Runs all checks of strategies that apply, by its traits and hooks. Raises `AssertionError` with all that fail.

    strategy: its name, if it is installed; or a module or an object with hooks. options, model_options: in every merge
    of the checks; those of `model_options` are each model's. promises: what it promises that traits do not say:
    "identity" (equal models give that model; without a base model, all strategies do), "linearity", "homogeneity".
    expected_failures: name of a check → why it fails.

    >>> check_strategy("weighted")
    """
    given: dict[str, Any] = {"options": options, "model_options": model_options, "promises": promises}
    run_checks("strategy", strategy, expected_failures, **given)


def check_validator(
    validator: Any,
    *,
    subject: Callable[[], Subject] = stand_in,
    options: Mapping[str, Any] | None = None,
    settings: ValidationSettings | None = None,
    expected_failures: Expected = NONE,
) -> None:
    """Runs all checks of validators. Raises `AssertionError` with all that fail.

    validator: its name, or a module or an object. subject: makes what is measured, as `subject_of` does; a small
    stand-in unless given, which has texts, prompts, answers, a torch module of bytes, and two sources. options: of the
    validator. settings: the argument of the hook. expected_failures: name of a check → why it fails.

    >>> check_validator("perplexity")
    """
    given: dict[str, Any] = {"subject": subject, "options": options, "settings": settings}
    run_checks("validator", validator, expected_failures, **given)


def check_loader(
    loader: Any,
    *,
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor] | None = None,
    options: Mapping[str, Any] | None = None,
    expected_failures: Expected = NONE,
) -> None:
    """Runs all checks of loaders: a checkpoint reads what it says, any slice, in any thread, and damage is refused.

    loader: its name, or a module or an object. path: a small model that it opens. tensors: what that holds; None where
    that is not known. options: of the plugin. expected_failures: name of a check → why it fails. Raises
    `AssertionError` with all that fail.

    ```python
    check_loader("flat", path=tmp_path / "model", tensors={"w": torch.tensor([1.0, 2.0])})
    ```
    """
    run_checks("loader", loader, expected_failures, path=path, tensors=tensors, options=options)


def check_views(
    view: Any,
    *,
    models: Sequence[Mapping[str, torch.Tensor]],
    config: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    expected_failures: Expected = NONE,
) -> None:
    """Runs all checks of plugins with `view_models`. Raises `AssertionError` with all that fail.

    view: its name, or a module or an object. models: what is viewed. config: the config.json of each. options: of the
    plugin. settings: the argument of the hook, which `settings_of` makes; those of an average unless given.
    expected_failures: name of a check → why it fails.

    ```python
    check_views("three_layers", models=[tensors, tensors], config={"num_hidden_layers": 4})
    ```
    """
    given: dict[str, Any] = {"models": models, "config": config, "options": options, "settings": settings}
    run_checks("view", view, expected_failures, **given)


def check_executor(
    executor: Any,
    *,
    strategy: str | None = None,
    options: Mapping[str, Any] | None = None,
    expected_failures: Expected = NONE,
) -> None:
    """Runs all checks of executors, by merges on the disk. Raises `AssertionError` with all that fail.

    executor: its name, or a module or an object; one whose workers are other processes must be installed. strategy: an
    installed one, that merges two models without a base; None for any. options: of the executor. expected_failures:
    name of a check → why it fails.

    ```python
    check_executor("processes", options={"processes": 2})
    ```
    """
    run_checks("executor", executor, expected_failures, strategy=strategy, options=options)


def check_sidecars(
    plugin: Any,
    *,
    config: Mapping[str, Any] = NO_CONFIG,
    options: Mapping[str, Any] | None = None,
    expected_failures: Expected = NONE,
) -> None:
    """Runs all checks of plugins with `write_sidecars`. Raises `AssertionError` with all that fail.

    plugin: its name, or a module or an object. config: keys of the config of the merge, such as the section of an
    installed plugin. options: of the plugin. expected_failures: name of a check → why it fails.

    >>> check_sidecars("model_card")
    """
    run_checks("sidecars", plugin, expected_failures, config=config, options=options)
