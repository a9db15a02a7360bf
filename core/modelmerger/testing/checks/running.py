"""Runs all checks of a plugin, at once or as the cases of a test."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from attrs import frozen

from modelmerger.testing.checks.check import Check
from modelmerger.testing.checks.executors import EXECUTOR_CHECKS, ExecutorUnderTest
from modelmerger.testing.checks.loaders import LOADER_CHECKS, LoaderUnderTest
from modelmerger.testing.checks.sidecars import SIDECAR_CHECKS, SidecarsUnderTest
from modelmerger.testing.checks.strategy import StrategyUnderTest
from modelmerger.testing.checks.strategy_checks import STRATEGY_CHECKS
from modelmerger.testing.checks.validators import VALIDATOR_CHECKS, ValidatorUnderTest
from modelmerger.testing.checks.views import VIEW_CHECKS, ViewUnderTest
from modelmerger.values.text import suggestion

TestedKind = Literal["strategy", "validator", "loader", "view", "executor", "sidecars"]
"""What plugins are tested as."""
Expected = Mapping[str, str]
NONE: Expected = MappingProxyType({})


@frozen
class _Kind:
    subject: Callable[..., Any]
    checks: Sequence[Check[Any]]


KINDS: Mapping[TestedKind, _Kind] = MappingProxyType(
    {
        "strategy": _Kind(StrategyUnderTest.of, STRATEGY_CHECKS),
        "validator": _Kind(ValidatorUnderTest.of, VALIDATOR_CHECKS),
        "loader": _Kind(LoaderUnderTest.of, LOADER_CHECKS),
        "view": _Kind(ViewUnderTest.of, VIEW_CHECKS),
        "executor": _Kind(ExecutorUnderTest.of, EXECUTOR_CHECKS),
        "sidecars": _Kind(SidecarsUnderTest.of, SIDECAR_CHECKS),
    }
)
"""How the plugins of each kind are made subjects of checks, and the checks."""


def describe_checks(kind: TestedKind = "strategy") -> dict[str, str]:
    """The checks of a kind of plugins: name → what it says. Those that a plugin does not promise are left out.

    >>> describe_checks()["check_zeros"]
    'Models of zeros are merged, and give finite numbers: biases are often zero.'
    """
    return {check.name: check.promise for check in KINDS[kind].checks}


def run_checks(kind: TestedKind, plugin: Any, expected_failures: Expected, **given: Any) -> None:
    """Runs all checks that apply. Raises `AssertionError` with a line for each that fails, or should have failed."""
    _check_names(kind, expected_failures)
    subject = KINDS[kind].subject(plugin, **given)
    failed = []
    for check in KINDS[kind].checks:
        if not check.applies(subject):
            continue
        try:
            check.function(subject)
        except AssertionError as error:
            if check.name not in expected_failures:
                failed.append(f"{check.name}: {error}")
        else:
            if check.name in expected_failures:
                failed.append(f"{check.name} passes. Take it out of expected_failures.")
    if failed:
        raise AssertionError("\n".join(failed))


def parametrize_with_checks(
    plugins: Iterable[Any], *, kind: TestedKind = "strategy", expected_failures: Expected = NONE, **given: Any
) -> Any:
    """A decorator of a test that gets a plugin and a check: one case for each check that applies to it.

    plugins: names, modules or objects. kind: what they are, which is also the name of the test's first argument.
    expected_failures: name of a check → why it fails; such a case is an xfail, and passing is a failure. given: the
    other arguments of `check_strategy`, or of the function for that kind. It needs pytest.

    ```python
    @parametrize_with_checks(["power", my_package.median])
    def test_strategies(strategy, check):
        check(strategy)
    ```
    """
    import pytest

    _check_names(kind, expected_failures)
    cases = []
    for plugin in plugins:
        subject = KINDS[kind].subject(plugin, **given)
        for check in KINDS[kind].checks:
            if check.applies(subject):
                reason = expected_failures.get(check.name)
                marks = [pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError)] if reason else []
                case = _Case(check, plugin, subject, given, KINDS[kind].subject)
                cases.append(pytest.param(plugin, case, marks=marks, id=f"{subject.name}-{check.name}"))
    return pytest.mark.parametrize((kind, "check"), cases)


@frozen(eq=False)
class _Case:
    """A check of one plugin, which may be called with another one."""

    check: Check[Any]
    plugin: Any
    subject: Any
    given: Mapping[str, Any]
    make_subject: Callable[..., Any]

    def __call__(self, plugin: Any) -> None:
        """Raises `AssertionError` where the plugin does not pass."""
        same = plugin is self.plugin
        self.check.function(self.subject if same else self.make_subject(plugin, **self.given))


def _check_names(kind: TestedKind, expected: Expected) -> None:
    """Raises `ValueError` for a name that no check of the kind has."""
    known = [check.name for check in KINDS[kind].checks]
    for name in expected:
        if name not in known:
            raise ValueError(f"no check of a {kind} is named {name!r}{suggestion(name, known)}")
