"""Every installed strategy passes the checks of the kit that apply to it."""

from typing import Any

import pytest
from modelmerger.hooks.registry import Registry
from modelmerger.testing import parametrize_with_checks
from modelmerger.testing.checks.strategy import StrategyUnderTest
from modelmerger.testing.checks.strategy_laws import check_homogeneity, check_linearity
from modelmerger.testing.checks.strategy_values import check_equal_models

STRATEGIES = Registry.installed().names("strategy")


@parametrize_with_checks(STRATEGIES)
def test_strategies(strategy: str, check: Any) -> None:
    check(strategy)


@pytest.mark.parametrize("strategy", ["model_stock", "nuslerp", "multislerp", "sce", "ram"])
def test_equal_models_give_that_model(strategy: str) -> None:
    check_equal_models(StrategyUnderTest.of(strategy))


@pytest.mark.parametrize(
    "strategy", ["slerp", "karcher", "geometric_median", "model_stock", "ties", "dare_ties", "breadcrumbs", "consensus"]
)
def test_scaled_models_give_the_scaled_merge(strategy: str) -> None:
    options = {"epsilon": 0.0} if strategy == "slerp" else {}
    check_homogeneity(StrategyUnderTest.of(strategy, options=options))


def test_a_scaled_copy_is_linear() -> None:
    check_linearity(StrategyUnderTest.of("passthrough", options={"scale": 0.5}))
