"""Entries of `models` that a plugin of others expands: what the members have, where they stand, and what is said of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from modelmerger import ConfigError, MergeConfig, PluginError
from modelmerger.testing import settings_of

from tests.core.plugging import install

TWINS = """
from attrs import frozen
from modelmerger import ConfigError, Problem, hookimpl

@frozen(kw_only=True)
class ModelOptions:
    heavier: float = 1.0

@hookimpl
def expand_model(reference, model_options):
    if reference.path == "refused":
        raise ConfigError(Problem("has no twin", reference.where))
    if not reference.path.endswith("/twins"):
        return None
    home = reference.path.removesuffix("/twins")
    parts = (1.0, model_options.heavier)
    return {f"{home}/left": parts[0] / sum(parts), f"{home}/right": parts[1] / sum(parts)}
"""


@pytest.fixture(autouse=True)
def _installed(distribution: Callable[..., Path]) -> None:
    install(distribution, [("plugin", "twins", TWINS)])


def told(*models: dict[str, Any], **config: Any) -> list[tuple[str, str, Any]]:
    settings = settings_of({"strategy": "weighted", "models": list(models), **config})
    return [(model.path, model.name, model.weight) for model in settings.models]


def refused(*models: dict[str, Any], **config: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        MergeConfig(**{"strategy": "weighted", "models": list(models), **config})
    return [str(problem) for problem in error.value.problems]


def test_members_take_the_place_of_the_entry_and_share_its_weight() -> None:
    found = told({"path": "a"}, {"path": "m/twins", "weight": 4, "heavier": 3}, {"path": "b", "weight": 0.5})
    assert found == [("a", "a", 1.0), ("m/left", "left", 1.0), ("m/right", "right", 3.0), ("b", "b", 0.5)]


def test_without_a_weight_they_share_one() -> None:
    assert [weight for *_, weight in told({"path": "m/twins"})] == [0.5, 0.5]


def test_names_are_those_of_the_entry_with_the_way_to_the_member_or_as_of_any_model() -> None:
    assert [name for _, name, _ in told({"path": "m/twins", "name": "pair"})] == ["pair/left", "pair/right"]
    assert [name for _, name, _ in told({"path": "m/twins"}, {"path": "n/twins"})] == [
        "m/left",
        "m/right",
        "n/left",
        "n/right",
    ]


def test_other_keys_of_the_entry_are_those_of_each_member() -> None:
    settings = settings_of(
        {"strategy": "ties", "base_model": "z", "models": [{"path": "m/twins", "density": 0.3, "layers": [0, 2]}]}
    )
    assert [model.layers for model in settings.models] == [(0, 2), (0, 2)]
    assert [options.density for options in settings.model_options] == [0.3, 0.3]


def test_the_config_that_is_kept_has_the_members_and_expands_no_further() -> None:
    config = MergeConfig(strategy="weighted", models=[{"path": "m/twins", "heavier": 3}])
    kept = config.resolved()[0].given
    assert kept["models"] == [{"path": "m/left", "weight": 0.25}, {"path": "m/right", "weight": 0.75}]
    assert config.as_dict()["models"] == [{"path": "m/twins", "heavier": 3}]  # and the user's is as it was
    assert settings_of(kept).given == kept


def test_a_strategy_that_does_not_weigh_gets_members_of_equal_shares_alone() -> None:
    config = {"strategy": "model_stock", "base_model": "z"}
    assert [weight for *_, weight in told({"path": "m/twins"}, **config)] == [1.0, 1.0]
    said = refused({"path": "m/twins", "heavier": 3}, **config)
    assert [line.partition(",")[0] for line in said] == ["models[0].weight: model_stock does not weigh models"] * 2


def test_merges_within_the_merge_are_expanded_too_wherever_they_stand() -> None:
    inner = {"strategy": "weighted", "models": [{"path": "m/twins"}]}
    settings = settings_of(
        {
            "strategy": "task_arithmetic",
            "base_model": {"merge": inner},
            "models": [{"path": "x/twins"}, {"merge": inner}, {"path": "soup"}],
            "merges": {"soup": inner},
        }
    )
    assert sorted(settings.merges) == ["base_model", "models[2].path", "models[3].path"]
    for merge in settings.merges.values():
        assert [model.path for model in merge.models] == ["m/left", "m/right"]


def test_a_path_that_names_a_merge_is_not_expanded() -> None:
    inner = {"strategy": "weighted", "models": [{"path": "a"}]}
    assert len(told({"path": "refused"}, merges={"refused": inner})) == 1


def test_models_in_memory_behind_the_entry_stay_what_they_are() -> None:
    tensors = {"w": torch.ones(2)}
    settings = settings_of({"strategy": "weighted", "models": [{"path": "m/twins"}, {"path": tensors}]})
    assert list(settings.live) == ["models[2].path"]


def test_what_is_wrong_is_said_once_and_where_the_user_has_it() -> None:
    inner = {"strategy": "weighted", "models": [{"path": "m/twins"}, {"path": "b", "wieght": 1}]}
    said = refused({"path": "m/twins", "wieght": 1}, {"path": "b", "weight": "x"}, {"merge": inner})
    assert said == [
        "models[0]: unknown key 'wieght', did you mean 'weight'?",
        "models[1].weight: must be a number or a list or a mapping, got 'x'",
        "models[2].merge.models[1]: unknown key 'wieght', did you mean 'weight'?",
    ]


def test_what_a_plugin_refuses_is_said_at_its_entry() -> None:
    inner = {"strategy": "weighted", "models": [{"path": "refused"}]}
    said = refused({"path": "m/twins"}, {"path": "refused"}, {"merge": inner})
    assert said == ["models[1].path: has no twin", "models[2].merge.models[0].path: has no twin"]


def test_keys_of_the_plugin_are_checked_as_any(distribution: Callable[..., Path]) -> None:
    assert refused({"path": "m/twins", "heavier": "x"}) == ["models[0].heavier: must be a number, got 'x'"]
    assert refused({"path": "a", "hevier": 1}) == ["models[0]: unknown key 'hevier', did you mean 'heavier'?"]
    told_of_models = settings_of({"strategy": "weighted", "models": [{"path": "a", "heavier": 2}]})
    assert told_of_models.plugin_model_options[0]["twins"].heavier == 2.0


@pytest.mark.parametrize(
    "answer",
    ["{}", "['a']", "[('a', 0.5)]", "[{'a': 1.0}]", "[]", "{'a': float('nan')}", "{1: 1.0}", "{'': 1.0}", "{'a': '1'}"],
)
def test_another_answer_is_the_plugins_fault(distribution: Callable[..., Path], answer: str) -> None:
    source = f"from modelmerger import hookimpl\n@hookimpl\ndef expand_model(reference):\n    return {answer}\n"
    install(distribution, [("plugin", "wrong", source)], "wrong")
    with pytest.raises(PluginError, match=r"expand_model gave .* instead of None or a mapping from paths"):
        MergeConfig(strategy="weighted", models=[{"path": "a"}])
