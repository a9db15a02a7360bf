"""What a strategy of others wants to know of each model: keys of the models, checked against its class and handed to its hooks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from modelmerger import ConfigError, MergeConfig
from modelmerger.testing import merge_in_memory, settings_of

from tests.core.plugging import install

ROLES = """
import torch
from attrs import field, frozen
from modelmerger import Traits, hookimpl, must_be_one_of

traits = Traits(models=(1, None))

@frozen(kw_only=True)
class ModelOptions:
    role: str = field(default="teacher", validator=must_be_one_of("teacher", "pupil"))
    trust: float = 1.0
"""
LINEAR = (
    ROLES
    + """
@hookimpl
def find_coefficients(weights, model_options):
    signs = [-1 if told.role == "pupil" else 1 for told in model_options]
    return [weight * sign * told.trust for weight, sign, told in zip(weights, signs, model_options, strict=True)]
"""
)
MERGING = (
    ROLES
    + """
@hookimpl
def merge_tensor(tensors, weights, model_options):
    assert len(tensors) == len(weights) == len(model_options)
    return torch.stack([told.trust * tensor for told, tensor in zip(model_options, tensors)]).sum(0)
"""
)


@pytest.fixture(autouse=True)
def _installed(distribution: Callable[..., Path]) -> None:
    install(distribution, [("strategy", "linear", LINEAR), ("strategy", "merging", MERGING)])


def problems(*models: dict[str, Any], strategy: str = "linear") -> list[str]:
    with pytest.raises(ConfigError) as refused:
        MergeConfig(strategy=strategy, models=list(models))
    return [str(problem) for problem in refused.value.problems]


def test_keys_of_models_are_those_of_the_strategys_class() -> None:
    told = settings_of({"strategy": "linear", "models": [{"path": "a", "role": "pupil"}, {"path": "b", "trust": 2}]})
    assert [(each.role, each.trust) for each in told.model_options] == [("pupil", 1.0), ("teacher", 2.0)]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"role": "head"}, "models[1].role: must be one of teacher, pupil, got 'head'"),
        ({"trust": "full"}, "models[1].trust: must be a number, got 'full'"),
        ({"rolle": "pupil"}, "models[1]: unknown key 'rolle', did you mean 'role'?"),
        ({"wieght": 1}, "models[1]: unknown key 'wieght', did you mean 'weight'?"),
        ({"operation": "add"}, "models[1]: 'operation' belongs to task_arithmetic, and the strategy is linear. Leave it out"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_them_is_said_with_its_place(model: dict[str, Any], problem: str) -> None:
    assert problems({"path": "a"}, {"path": "b", **model}) == [problem]


def test_another_strategy_does_not_take_them() -> None:
    owners = "linear from acme-merge 1.0, merging from acme-merge 1.0"
    said = f"models[0]: 'role' belongs to {owners}, and the strategy is weighted. Leave it out"
    assert problems({"path": "a", "role": "pupil"}, strategy="weighted") == [said]


def test_a_linear_strategy_is_handed_them_in_the_order_of_the_models() -> None:
    models = [{"t": torch.tensor([value])} for value in (1.0, 10.0, 100.0)]
    told = [{"trust": 0.5}, {"role": "pupil"}, {"trust": 2, "role": "pupil"}]
    merged = merge_in_memory("linear", models, weights=[1, 1, 0.5], model_options=told)
    assert merged["t"].tolist() == [0.5 - 10.0 - 100.0]


@pytest.mark.parametrize(("weights", "total"), [([1, 1, 1], 0.5 + 20 + 300), ([1, 0, 1], 0.5 + 300), ([0, 1, 0], 20)])
def test_a_strategy_that_merges_is_handed_those_of_the_models_that_are_there(
    weights: list[float], total: float
) -> None:
    models = [{"t": torch.tensor([value])} for value in (1.0, 10.0, 100.0)]
    told = [{"trust": 0.5}, {"trust": 2}, {"trust": 3}]
    merged = merge_in_memory("merging", models, weights=weights, model_options=told)
    assert merged["t"].tolist() == [total]


def test_they_are_missing_where_the_tensors_weight_is_zero() -> None:
    """Which models are there is asked for each tensor."""
    names = ("layers.0.w", "layers.1.w")
    models = [dict.fromkeys(names, torch.tensor([value])) for value in (1.0, 10.0)]
    told = [{"trust": 2}, {"trust": 3}]
    merged = merge_in_memory("merging", models, weights=[[1, 0], [0, 1]], model_options=told)
    assert [merged[name].tolist() for name in names] == [[2], [30]]
