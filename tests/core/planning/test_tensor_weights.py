"""The weight of every tensor, beside a computation with numpy.interp that knows nothing of the code."""

import random
from collections.abc import Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from modelmerger import ConfigError, Problem, shown_weight
from modelmerger.planning.tensor_weights import depths, number_at, numbers_by_tensor
from modelmerger.testing import settings_of
from modelmerger.values.weights import Weight

DECODER = [
    "model.embed_tokens.weight",
    *(f"model.layers.{i}.{part}" for i in range(5) for part in ("mlp.weight", "norm.weight", "mlp.experts.9.w1")),
    "model.norm.weight",
    "lm_head.weight",
]
BOTH = [
    "shared.weight",
    *(f"encoder.block.{i}.layer.{j}.q.weight" for i in range(3) for j in range(2)),
    *(f"decoder.block.{i}.layer.{j}.q.weight" for i in range(7) for j in range(3)),
    "encoder.final_layer_norm.weight",
    "decoder.final_layer_norm.weight",
    "lm_head.weight",
]
FIRST = ("model.embed_tokens.weight", "shared.weight")


def given(*weights: Weight) -> list[tuple[str, Weight]]:
    return [(f"models[{i}].weight", weight) for i, weight in enumerate(weights)]


def weights(weight: Weight, names: Sequence[str]) -> dict[str, float]:
    found, problems = numbers_by_tensor([("models[0].weight", weight)], names, names)
    assert problems == []
    return {name: values[0] for name, values in found.items()}


def said(weight: Weight, names: Sequence[str] = DECODER, merged: Sequence[str] | None = None) -> list[Problem]:
    return numbers_by_tensor(given(1.0, weight), names, names if merged is None else merged)[1]


def expected(weight: Weight, names: Sequence[str], name: str) -> float:
    """What the contract says, step by step: the rule, then the place of the layer, then the line through the values."""
    if isinstance(weight, dict):
        patterns = [pattern for pattern in weight if pattern != "default" and fnmatchcase(name, pattern)]
        weight = weight[patterns[0]] if patterns else weight["default"]
    values = list(weight) if isinstance(weight, tuple) else [weight]
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    if not numbers:
        return values[0] if name in FIRST else values[-1]
    prefix, number = parts[: numbers[0]], int(parts[numbers[0]])
    last = max(int(n.split(".")[len(prefix)]) for n in names if n.split(".")[: len(prefix)] == prefix)
    return float(np.interp(number / last, np.linspace(0, 1, len(values)), values)) if len(values) > 1 else values[0]


WEIGHTS: list[Weight] = [
    0.3,
    (0.3,),
    (0.0, 1.0),
    (1.0, 0.25, 0.5),
    (0.1, 0.9, -0.4, 2.0, 0.0, 0.7, 0.3, 1.5),
    {"*.q.weight": (0.0, 1.0), "*mlp*": 0.25, "default": (0.5, 0.75)},
    {"*.3.*": 0.9, "*": (0.0, 0.5, 0.1)},
    {"default": 0.6},
]


@pytest.mark.parametrize("names", [DECODER, BOTH], ids=["decoder", "encoder and decoder"])
@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
def test_every_tensor_has_the_weight_of_the_contract(weight: Weight, names: list[str]) -> None:
    found, _ = numbers_by_tensor([("models[0].weight", weight)], names, names)

    assert list(found) == names
    for name in names:
        assert found[name][0] == pytest.approx(expected(weight, names, name), rel=1e-14, abs=1e-15), name


def test_random_weights_agree_too() -> None:
    draw = random.Random(0)
    for _ in range(60):
        names = [f"m.layers.{i}.w" for i in range(draw.randint(2, 90))]
        values = tuple(draw.uniform(-2, 2) for _ in range(draw.randint(1, 12)))
        found = weights(values, names)
        for name in names:
            assert found[name] == pytest.approx(expected(values, names, name), rel=1e-13, abs=1e-14)


def test_what_stands_before_and_behind_the_layers() -> None:
    found = weights((0.25, 9.0, 0.75), DECODER)

    assert found["model.embed_tokens.weight"] == found["model.layers.0.mlp.weight"] == 0.25
    assert found["lm_head.weight"] == found["model.norm.weight"] == found["model.layers.4.mlp.weight"] == 0.75
    assert found["model.layers.2.mlp.experts.9.w1"] == 9.0


def test_encoder_and_decoder_are_counted_apart() -> None:
    found = weights((0.0, 1.0), BOTH)

    assert [found[f"encoder.block.{i}.layer.1.q.weight"] for i in range(3)] == [0, 0.5, 1]
    assert [found[f"decoder.block.{i}.layer.2.q.weight"] for i in (0, 3, 6)] == [0, 0.5, 1]


def test_the_first_match_wins_in_the_order_of_the_mapping() -> None:
    names = ["a.x", "a.y", "b.x"]

    assert weights({"a.*": 1.0, "*.x": 2.0}, names) == {"a.x": 1, "a.y": 1, "b.x": 2}
    assert weights({"*.x": 2.0, "a.*": 1.0}, names) == {"a.x": 2, "a.y": 1, "b.x": 2}
    assert weights({"default": 3.0, "a.*": 1.0}, names) == {"a.x": 1, "a.y": 1, "b.x": 3}


def test_patterns_are_those_of_the_shell_and_mind_capitals() -> None:
    names = ["q.1.W", "q.12.W", "q.1.w"]

    assert weights({"q.?.[VW]": 1.0, "q.1[!3].*": 2.0, "default": 0.0}, names) == {"q.1.W": 1, "q.12.W": 2, "q.1.w": 0}


def test_layers_that_begin_late_or_have_gaps_are_counted_as_they_are() -> None:
    assert depths(["h.1.w", "h.5.w", "h.9.w", "h.10.w"]) == {
        "h.1.w": 0,
        "h.5.w": Fraction(1, 3),
        "h.9.w": Fraction(2, 3),
        "h.10.w": 1,
    }
    assert depths(["h.7.w"]) == {"h.7.w": 0}


def test_values_of_a_list_are_met_exactly_and_equal_ones_stay_equal() -> None:
    values = (0.1, 0.7, 0.3, 0.9)

    assert [number_at(values, Fraction(i, 3)) for i in range(4)] == list(values)
    assert {number_at((0.1, 0.1), Fraction(i, 97)) for i in range(98)} == {0.1}
    assert number_at((1e308, -1e308), Fraction(1, 4)) == 5e307


def test_each_model_has_a_weight_of_its_own() -> None:
    found, problems = numbers_by_tensor(given(0.5, (0.0, 1.0), {"*norm*": 3.0, "default": 2.0}), DECODER, DECODER)

    assert found["model.layers.1.mlp.weight"] == (0.5, 0.25, 2.0)
    assert found["model.layers.1.norm.weight"] == (0.5, 0.25, 3.0)
    assert problems == []


def test_a_pattern_that_matches_no_tensor_names_the_closest_one() -> None:
    (problem,) = said({"*.mpl.*": 0.5, "default": 1.0})

    assert str(problem) == (
        "models[1].weight: the pattern '*.mpl.*' matches no tensor. The closest is model.layers.0.mlp.weight."
    )
    assert problem.severity == "error"
    (problem,) = said({"model.layers.44.mlp.weight": 0.5, "default": 1.0})
    assert "The closest is model.layers.0.mlp.weight." in problem.message


def test_a_tensor_that_nothing_matches_is_named() -> None:
    (problem,) = said({"model.layers.*": 0.5, "lm_head.*": 1.0})

    assert problem.severity == "error"
    assert (problem.where, problem.tensor) == ("models[1].weight", "model.embed_tokens.weight")
    assert problem.message == "no pattern matches it, nor 1 other tensor. Add one, or 'default'."


def test_only_merged_tensors_need_a_weight_but_any_may_be_matched() -> None:
    merged = [name for name in DECODER if "layers" in name]

    assert said({"model.layers.*": 0.5}, merged=merged) == []
    (problem,) = said({"model.layers.*": 0.5, "lm_head.*": 1.0}, merged=merged)
    assert problem.severity == "warning"
    assert problem.message.startswith("the pattern 'lm_head.*' has no effect")


def test_a_pattern_behind_one_that_matches_all_its_tensors_is_a_warning() -> None:
    (problem,) = said({"*": 1.0, "*.mlp.*": 0.5})

    assert (problem.severity, problem.where) == ("warning", "models[1].weight")
    assert problem.message.startswith("the pattern '*.mlp.*' has no effect")


def test_models_without_tensors_have_no_closest_one() -> None:
    (problem,) = said({"*": 0.5}, [])
    assert problem.message == "the pattern '*' matches no tensor."
    assert numbers_by_tensor(given((0.0, 1.0)), [], []) == ({}, [])


def test_names_and_patterns_of_any_length_are_told_in_time() -> None:
    names = [f"{'x' * 50000}.{i}.{'ab' * i}" for i in range(300)]

    (problem,) = said({"y" * 50000: 0.5, "default": 1.0}, names)

    assert "matches no tensor" in str(problem)
    assert len(str(problem)) <= 300


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (0.5, "0.5"),
        (1.0, "1"),
        ((0.0, 0.5, 1.0), "[0, 0.5, 1]"),
        ({"*.mlp.*": 0.3, "default": (0.0, 1.0)}, "{'*.mlp.*': 0.3, 'default': [0, 1]}"),
    ],
)
def test_weights_are_shown_as_they_are_written(weight: Weight, text: str) -> None:
    assert shown_weight(weight) == text


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("0.5", ": must be a number or a list or a mapping, got '0.5'. Write it without quotes"),
        (True, ": must be a number or a list or a mapping, got True"),
        ([], ": must not be an empty list. Give one number or more"),
        ({}, ": must not be an empty mapping. Give a number by pattern, and 'default'"),
        ([0.5, "1"], "[1]: must be a number, got '1'. Write it without quotes"),
        ([0.5, [1]], "[1]: must be a number, got [1]"),
        ([0.5, float("nan")], ": must be a finite number, got nan"),
        ({"*": "1"}, "['*']: must be a number or a list, got '1'. Write it without quotes"),
        ({"*": []}, ": '*' must not be an empty list. Give one number or more"),
        ({"*": [0, False]}, "['*'][1]: must be a number, got False"),
        ({"*": {"*": 1}}, "['*']: must be a number or a list, got {'*': 1}"),
        ({"a": 1, "*": [float("inf")]}, ": '*' must be a finite number, got inf"),
        ({3: 1}, "[3]: must be a text, got 3"),
    ],
    ids=str,
)
def test_weights_that_are_none_are_refused_with_their_place(given: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of({"strategy": "weighted", "models": [{"path": "a"}, {"path": "b", "weight": given}]})
    assert [str(found) for found in caught.value.problems] == [f"models[1].weight{problem}"]


@pytest.mark.parametrize(
    ("given", "weight"),
    [(1, 1.0), ([1, 0], (1.0, 0.0)), ((1, 0), (1.0, 0.0)), ({"*": 1, "default": [0, 1]}, {"*": 1.0, "default": (0.0, 1.0)})],
)  # fmt: skip
def test_weights_are_taken_as_floats(given: Any, weight: Weight) -> None:
    (model,) = settings_of({"strategy": "weighted", "models": [{"path": "a", "weight": given}]}).models
    assert model.weight == weight
