"""Numbers that a config leaves open, and what every other command says of them."""

from typing import Any

import jsonschema
import pytest
from modelmerger import ConfigError, MergeConfig
from modelmerger.config.schema import config_schema
from modelmerger_plugins.tune.marks import marks_of, with_values

MODELS = [{"path": "./a", "weight": 1.0}, {"path": "./b", "weight": 1.0}]


def given(weight: Any = 1.0, **more: Any) -> dict[str, Any]:
    return {"strategy": "weighted", "models": [{"path": "./a", "weight": weight}, {"path": "./b"}], **more}


OPEN = [
    given({"tune": [0, 1]}),
    given({"tune": [0, 1], "start": 0.35, "per": "layer"}),
    given({"*.mlp.*": {"tune": [0, 1]}, "default": 0.5}),
    given([{"tune": [0, 1]}, 0.5]),
    given(options={"weight_decay": {"tune": [0, 0.5], "start": 0.1}}),
    given(tune={"texts": "lines.jsonl"}),
]


@pytest.mark.parametrize("config", OPEN)
def test_whoever_merges_it_is_told_to_tune_it_first(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="modelmerger tune") as caught:
        MergeConfig.from_dict(config)
    assert caught.value.exit_status == 2
    assert caught.value.problems[0].where == "tune"


@pytest.fixture(scope="module")
def schema() -> Any:
    return jsonschema.Draft202012Validator(config_schema())


@pytest.mark.parametrize("config", OPEN)
def test_the_schema_knows_it(schema: Any, config: dict[str, Any]) -> None:
    schema.validate(config)


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ({"tune": [0]}, "two numbers"),
        ({"tune": [1, 0]}, "the smaller first"),
        ({"tune": [0, 1], "start": 2}, "from 0 to 1"),
        ({"tune": [0, True]}, "two numbers"),
        ({"tune": [0, float("inf")]}, "two numbers"),
        ({"tune": [0, 1], "per": "head"}, "model, layer, tensor, auto"),
        ({"tune": [0, 1], "strat": 1}, "unknown key 'strat'"),
    ],
)
def test_what_is_wrong_with_a_mark_is_said_with_its_key(mark: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        marks_of(given(mark))
    assert caught.value.problems[0].where == "models[0].weight"


def test_values_take_the_places_of_marks() -> None:
    config = given({"*.mlp.*": {"tune": [0, 1], "start": 0.25}, "default": [{"tune": [0, 2]}, 0.5]})
    marks = marks_of(config)
    assert [mark.where for mark in marks] == ["models[0].weight.*.mlp.*", "models[0].weight.default[0]"]
    found = with_values(config, {mark.place: mark.start for mark in marks})
    assert found["models"][0]["weight"] == {"*.mlp.*": 0.25, "default": [1.0, 0.5]}
    assert MergeConfig.from_dict(found)
