"""The JSON Schema for editors is the one that is published, and agrees with what `MergeConfig` says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from modelmerger import ConfigError, MergeConfig
from modelmerger.config.schema import config_schema

from tests.core.plugging import WEIGHTS_SQUARED, install

PUBLISHED = Path(__file__).parents[3] / "docs/merge-config.schema.json"
TWO = [{"path": "./a", "weight": 0.6}, {"path": "./b", "weight": 0.4, "name": "b"}]
SOUP: dict[str, Any] = {"strategy": "weighted", "models": TWO}

GOOD: list[dict[str, Any]] = [
    {"strategy": "weighted", "models": TWO},
    {"strategy": "weighted", "models": TWO, "validation": {"metrics": ["perplexity", "fluency"], "thresholds": {"fluency": 20}}},
    {"strategy": "weighted", "models": TWO, "options": None, "output_path": None, "validation": {}, "peft_config": {}},
    {"strategy": "weighted", "models": TWO, "options": {"weight_decay": 0.1, "torch_dtype": "bfloat16", "max_shard_size": 10**9}},
    {"strategy": "weighted", "models": TWO, "options": {"log_level": None, "offload_folder": None, "preserve_tokenizer": False}},
    {"strategy": "sequential", "models": [{"path": "./a"}, {"path": "./b", "weight": 0.3}], "output_path": "./out"},
    {"strategy": "slerp", "models": TWO, "options": {"interpolation_factor": None, "epsilon": 0}},
    {"strategy": "task_arithmetic", "models": [{"path": "a", "operation": "subtract"}], "base_model": "b", "options": {"clamp_range": [-1, 1]}},
    {"strategy": "weighted", "models": TWO, "peft_config": {"merge_adapters": True, "adapter_names": ["default"], "base_model_path": None}},
    {"strategy": "task_arithmetic", "models": TWO, "peft_config": {"base_model_path": "b"}, "options": {"merge_method": "svd", "rank": 4}},
    {"strategy": "task_arithmetic", "models": TWO, "peft_config": {"merge_adapters": True}},
    {"strategy": "weighted", "models": [{"path": "a", "weight": [0, 0.5, 1]}, {"path": "b", "weight": {"*.mlp.*": 0.3, "default": [1, 0]}}]},
    {"strategy": "weighted", "models": [{"path": "a", "weight": [1]}], "options": {"merge_embeddings": False, "merge_lm_head": None}},
    {"strategy": "weighted", "models": TWO, "options": {"missing_tensors": "union", "merge_lm_head": False}},
    {"strategy": "ties", "models": TWO, "base_model": "c", "options": {"scaling_factor": "matched", "density": [0.1, 1]}},
    {"strategy": "ties", "models": [{"path": "a", "density": {"*": 0.5}}], "base_model": "c", "options": {"scaling_factor": [0.5, 1]}},
    {"strategy": "dare_ties", "models": TWO, "base_model": "c", "options": {"rescale": "l1"}},
    {"strategy": "della", "models": [{"path": "a", "epsilon": 0.1}], "base_model": "c", "options": {"rescale": False}},
    {"strategy": "weighted", "models": TWO, "validation": {"run_tests": False, "test_prompts": {"gulf": ["شلونك؟"]}, "chat_template": "auto"}},
    {"strategy": "weighted", "models": [{"merge": SOUP, "weight": [0, 1], "name": "soup"}, {"path": "c"}]},
    {"strategy": "task_arithmetic", "models": [{"merge": {**SOUP, "options": {"weight_decay": 0.1}}, "operation": "subtract"}], "base_model": {"merge": SOUP}},
    {"strategy": "weighted", "models": [{"path": "soup"}], "merges": {"soup": {**SOUP, "peft_config": {"base_model_path": "x"}}, "حساء": SOUP}},
    {"strategy": "weighted", "models": [{"merge": {"strategy": "slerp", "models": [{"merge": SOUP}, {"path": "b"}], "options": {"seed": 3, "epsilon": 0}}}]},
]  # fmt: skip
BAD: list[dict[str, Any]] = [
    {},
    {"strategy": "weighted"},
    {"models": TWO},
    {"strategy": "weighted", "models": []},
    {"strategy": "weighted", "models": ["./a"]},
    {"strategy": "weighted", "models": [{"weight": 1}]},
    {"strategy": "weighted", "models": [{"path": ""}]},
    {"strategy": "weighted", "models": [{"path": "a", "wieght": 1}]},
    {"strategy": "weighted", "models": [{"path": "a", "weight": "0.4"}]},
    {"strategy": "weighted", "models": [{"path": "a", "weight": []}]},
    {"strategy": "weighted", "models": [{"path": "a", "weight": {}}]},
    {"strategy": "weighted", "models": [{"path": "a", "weight": [0.5, "1"]}]},
    {"strategy": "weighted", "models": [{"path": "a", "weight": {"*": "1"}}]},
    {"strategy": "weighted", "models": [{"path": "a", "weight": {"*": []}}]},
    {"strategy": "weighted", "models": [{"path": "a", "weight": {"*": {"*": 1}}}]},
    {"strategy": "weighted", "models": [{"path": "a", "weight": [[1]]}]},
    {"strategy": "weighted", "models": TWO, "options": {"missing_tensors": "base"}},
    {"strategy": "weighted", "models": TWO, "options": {"merge_embeddings": None}},
    {"strategy": "weighted", "models": [{"path": "a", "operation": "subtract"}]},
    {"strategy": "weighted", "models": TWO, "modles": []},
    {"strategy": "weighted", "models": TWO, "output_path": ""},
    {"strategy": "weighted", "models": TWO, "options": {"interpolation_factor": 0.5}},
    {"strategy": "weighted", "models": TWO, "options": {"normalise_weights": True}},
    {"strategy": "weighted", "models": TWO, "options": {"weight_decay": 1}},
    {"strategy": "weighted", "models": TWO, "options": {"weight_decay": "matched"}},
    {"strategy": "ties", "models": TWO, "base_model": "c", "options": {"scaling_factor": "machted"}},
    {"strategy": "ties", "models": TWO, "base_model": "c", "options": {"density": 0}},
    {"strategy": "ties", "models": TWO},
    {"strategy": "dare_ties", "models": TWO, "base_model": "c", "options": {"rescale": "l2"}},
    {"strategy": "consensus", "models": TWO, "base_model": "c", "options": {"agreeing_models": 0}},
    {"strategy": "weighted", "models": TWO, "options": {"verbose": "no"}},
    {"strategy": "weighted", "models": TWO, "options": {"verbose": None}},
    {"strategy": "weighted", "models": TWO, "options": {"torch_dtype": "float8"}},
    {"strategy": "weighted", "models": TWO, "options": {"device_map": "gpu"}},
    {"strategy": "weighted", "models": TWO, "options": {"rank": 0}},
    {"strategy": "weighted", "models": TWO, "options": {"merge_method": "best"}},
    {"strategy": "task_arithmetic", "models": TWO, "peft_config": {}},
    {"strategy": "weighted", "models": TWO, "options": {"seed": -1}},
    {"strategy": "weighted", "models": TWO, "options": {"seed": 2**63}},
    {"strategy": "weighted", "models": TWO, "options": []},
    {"strategy": "slerp", "models": [*TWO, {"path": "c"}]},
    {"strategy": "slerp", "models": TWO, "options": {"interpolation_factor": 1.5}},
    {"strategy": "task_arithmetic", "models": TWO},
    {"strategy": "task_arithmetic", "models": TWO, "base_model": "b", "options": {"clamp_range": [1]}},
    {"strategy": "weighted", "models": TWO, "peft_config": {"adapter_names": "default"}},
    {"strategy": "weighted", "models": TWO, "validation": {"metrics": []}},
    {"strategy": "weighted", "models": TWO, "validation": {"max_new_tokens": 0}},
    {"strategy": "weighted", "models": TWO, "validation": {"thresholds": {"perplexity": "20"}}},
    {"strategy": "weighted", "models": TWO, "validation": {"run_tests": False, "test_prompt": []}},
    {"strategy": "weighted", "models": [{"merge": SOUP, "path": "c"}]},
    {"strategy": "weighted", "models": [{"merge": {}}]},
    {"strategy": "weighted", "models": [{"merge": {**SOUP, "output_path": "c"}}]},
    {"strategy": "weighted", "models": [{"merge": {**SOUP, "options": {"overwrite": True}}}]},
    {"strategy": "weighted", "models": [{"merge": {**SOUP, "options": {"epsilon": 0}}}]},
    {"strategy": "weighted", "models": [{"merge": {**SOUP, "strategy": "task_arithmetic"}}]},
    {"strategy": "weighted", "models": [{"merge": {"strategy": "slerp", "models": [{"path": "a"}, {"merge": {"strategy": "weighted"}}]}}]},
    {"strategy": "weighted", "models": TWO, "base_model": {"merge": SOUP, "name": "x"}},
    {"strategy": "weighted", "models": TWO, "merges": {"a/b": SOUP}},
    {"strategy": "weighted", "models": TWO, "merges": {"a": {"path": "b"}}},
]  # fmt: skip


@pytest.fixture(scope="module")
def validator() -> Any:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    return jsonschema.Draft202012Validator(published)


def test_the_published_schema_is_that_of_the_code() -> None:
    made = json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"
    remedy = "run: python -m modelmerger.config.schema > docs/merge-config.schema.json"
    assert PUBLISHED.read_text(encoding="utf-8") == made, remedy


@pytest.mark.parametrize("config", GOOD, ids=repr)
def test_good_configs_pass_the_schema_and_the_code(validator: Any, config: dict[str, Any]) -> None:
    assert [error.message for error in validator.iter_errors(config)] == []
    MergeConfig.from_dict(config)


@pytest.mark.parametrize("config", BAD, ids=repr)
def test_bad_configs_fail_both(validator: Any, config: dict[str, Any]) -> None:
    assert not validator.is_valid(config)
    with pytest.raises(ConfigError):
        MergeConfig.from_dict(config)


def test_every_key_is_described(validator: Any) -> None:
    def undescribed(schema: Any, place: str) -> list[str]:
        if not isinstance(schema, dict):
            return []
        found = (
            [place] if set(schema) and "description" not in schema and place.split(".")[-2:-1] == ["properties"] else []
        )
        return found + [gap for key, value in schema.items() for gap in undescribed(value, f"{place}.{key}")]

    top = {
        key: value for key, value in validator.schema["properties"].items() if key not in ("peft_config", "validation")
    }
    assert undescribed({"properties": top}, "schema") == []
    for branch in validator.schema["allOf"]:
        assert undescribed(branch["then"]["properties"]["options"], "options") == []


def test_strategies_of_others_are_allowed_and_do_not_change_what_is_published(
    validator: Any, distribution: Callable[..., Path]
) -> None:
    install(distribution, [("strategy", "trims", WEIGHTS_SQUARED), ("plugin", "broken", "1 / 0")])
    assert config_schema() == validator.schema
    assert validator.is_valid({"strategy": "trims", "models": TWO, "options": {"density": 0.3}})


def test_what_a_plugin_says_may_stand_in_place_of_numbers(validator: Any) -> None:
    """It stands for a weight, for an option of a strategy, and for a number by pattern or by layer."""
    mark = {"tune": [0, 0.5], "per": "layer"}
    for weight in (mark, {"*.mlp.*": mark, "default": 1}, [mark, 1]):
        validator.validate({"strategy": "weighted", "models": [{"path": "a", "weight": weight}]})
    validator.validate({"strategy": "weighted", "models": TWO, "options": {"weight_decay": mark}})
    for wrong in (
        {"models": [{"path": "a", "weight": {**mark, "per": "head"}}]},
        {"models": TWO, "options": {"seed": mark}},
    ):
        assert not validator.is_valid({"strategy": "weighted", **wrong})
