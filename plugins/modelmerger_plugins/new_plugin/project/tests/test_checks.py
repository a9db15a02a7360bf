"""All that modelmerger asks of any plugin."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from agreeing_merge import sidecar, strategy, validator
from modelmerger.testing import parametrize_with_checks

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {module for group in PROJECT["entry-points"].values() for module in group.values()}


@parametrize_with_checks([strategy], promises=["identity", "homogeneity"])
def test_strategy(strategy, check):
    check(strategy)


@parametrize_with_checks([validator], kind="validator")
def test_validator(validator, check):
    check(validator)


@parametrize_with_checks([sidecar], kind="sidecars")
def test_sidecar(sidecars, check):
    check(sidecars)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_entry_points_name_modules(module):
    assert import_module(module).__doc__
