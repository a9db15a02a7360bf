"""One function for each kind of plugins that runs all of its checks."""

from collections.abc import Collection, Mapping
from typing import Any

from modelmerger.testing.checks.running import NONE, Expected, run_checks
from modelmerger.testing.checks.strategy import Promise


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
