"""The checks of strategies catch what they are for, say what to do, and pass what is sound."""

import subprocess
import sys
from typing import Any

import pytest
from attrs import frozen
from modelmerger import ConfigError, Traits, hookimpl
from modelmerger.testing import check_strategy, describe_checks, parametrize_with_checks
from modelmerger.testing.checks.strategy import StrategyUnderTest
from modelmerger.testing.checks.strategy_checks import STRATEGY_CHECKS

from tests.core.testing.broken_strategies import BROKEN, LastCounts, Linear, Mean, Sum, Updates

CHECKS = {check.name: check for check in STRATEGY_CHECKS}
CASES = [(name, kind) for name, kinds in BROKEN.items() for kind in kinds]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_each_check_catches_a_strategy_that_breaks_it(name: str, kind: Any) -> None:
    strategy = StrategyUnderTest.of(kind())
    assert CHECKS[name].applies(strategy)
    with pytest.raises(AssertionError) as failed:
        CHECKS[name].function(strategy)
    assert kind.__name__ in str(failed.value)
    assert CHECKS[name].promise


def test_no_check_is_without_a_strategy_that_it_catches() -> None:
    assert BROKEN.keys() == CHECKS.keys() == describe_checks().keys()


@pytest.mark.parametrize("kind", [Mean, Updates, Linear])
def test_sound_ones_pass(kind: Any) -> None:
    check_strategy(kind())


def test_all_that_fails_is_said_at_once() -> None:
    with pytest.raises(AssertionError) as failed:
        check_strategy(Sum())
    lines = str(failed.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["check_equal_models", "check_near_the_largest_float16"]


def test_what_is_expected_to_fail_may() -> None:
    reason = dict.fromkeys(["check_equal_models", "check_near_the_largest_float16"], "adds up, as it is meant to")
    check_strategy(Sum(), expected_failures=reason)
    with pytest.raises(AssertionError, match=r"^check_equal_models passes\. Take it out of expected_failures\.\n"):
        check_strategy(Mean(), expected_failures=reason)
    with pytest.raises(ValueError, match="no check of a strategy is named 'check_equal_model', did you mean"):
        check_strategy(Mean(), expected_failures={"check_equal_model": "a slip"})


class Ordered(LastCounts):
    traits = Traits(models=(1, None), ordered=True)


class Promising:
    traits = Traits(models=(1, None), inputs="updates")

    @hookimpl
    def merge_tensor(self, tensors: Any) -> Any:
        return sum(tensors)


def test_traits_and_promises_say_what_is_checked() -> None:
    check_strategy(Ordered())
    check_strategy(Promising(), promises=["linearity", "homogeneity"])
    with pytest.raises(AssertionError, match=r"^check_equal_models: Promising: equal models must give that model"):
        check_strategy(Promising(), promises=["identity"])


def test_a_plugin_that_is_none_is_said_to_be() -> None:
    class Traitless:
        @hookimpl
        def merge_tensor(self, tensors: Any) -> Any:
            return tensors

    with pytest.raises(AssertionError, match="has no 'traits'"):
        check_strategy(Traitless())
    with pytest.raises(ConfigError, match="no strategy is named 'wieghted'; did you mean 'weighted'"):
        check_strategy("wieghted")


class Demanding(Linear):
    @frozen
    class Options:
        power: float

    @hookimpl
    def find_coefficients(self, weights: Any, options: Options) -> Any:
        powers = [weight**options.power for weight in weights]
        return [power / sum(powers) for power in powers]


def test_options_without_a_default_are_given() -> None:
    check_strategy(Demanding(), options={"power": 2.0})
    with pytest.raises(AssertionError, match=r"check_zeros: .* was refused: options: .*'power'"):
        check_strategy(Demanding())


def test_pytest_is_needed_for_cases_alone() -> None:
    code = """
import sys
sys.modules["pytest"] = None
from modelmerger.testing import check_strategy, parametrize_with_checks
check_strategy("weighted")
try:
    parametrize_with_checks(["weighted"])
except ImportError:
    print("missed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "missed\n"


ADDS_UP = dict.fromkeys(["check_equal_models", "check_near_the_largest_float16"], "adds up")


@parametrize_with_checks([Mean(), Updates()])
def test_cases_of_sound_ones(strategy: Any, check: Any) -> None:
    check(strategy)


@parametrize_with_checks([Sum()], expected_failures=ADDS_UP)
def test_cases_that_are_expected_to_fail(strategy: Any, check: Any) -> None:
    check(strategy)
