"""Constraints are read, and never run."""

import pytest
from modelmerger import ConfigError
from modelmerger_plugins.tune.constraints import constraints_of

SPLITS, MODELS = ["gulf", "msa"], ["a", "base"]
LOSSES = {
    ("gap", "", "gulf"): 0.04,
    ("gap", "", "msa"): 0.07,
    ("loss", "", "msa"): 4.0,
    ("loss", "base", "msa"): 3.9,
    ("bits_per_byte", "", "gulf"): 1.5,
}


@pytest.mark.parametrize(
    ("text", "excess"),
    [
        ("gap(gulf) <= 0.05", -0.01),
        ("loss(msa) <= 1.06 * loss(base, msa)", 4.0 - 1.06 * 3.9),
        ("0.05 >= gap(gulf)", -0.01),
        ("gap(gulf) > .05", 0.01),
        ("bits_per_byte(gulf) < 2 - 1 / 2 * -(1 + 3) ", 1.5 - 4),
        ("2*3+4*5 <= 1e1", 16.0),
    ],
)
def test_a_comparison_is_what_arithmetic_says(text: str, excess: float) -> None:
    (found,) = constraints_of([text], SPLITS, MODELS)
    assert found.excess(LOSSES) == pytest.approx(excess)


def test_a_star_stands_for_each_split() -> None:
    found = constraints_of(["gap(*) <= 0.05"], SPLITS, MODELS)
    assert [one.excess(LOSSES) for one in found] == pytest.approx([-0.01, 0.02])
    assert [one.shown for one in found] == ["gap(gulf) <= 0.05", "gap(msa) <= 0.05"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gap(gulf)", "ends too early"),
        ("gap(gulf) == 1", "no meaning"),
        ("gap(gulf) <= 1 <= 2", "an end"),
        ("gap(tunis) <= 1", "no split is named 'tunis'"),
        ("loss(c, msa) <= 1", "no model is named 'c'"),
        ("gap(a, msa) <= 1", "1 argument at most"),
        ("__import__('os') <= 1", "stands where"),
        ("gap(gulf) <= 1 if 1 else 2", "an end"),
        ("(" * 30 + "1" + ")" * 30 + " <= 1", "deeper"),
        ("1 + " * 200 + "1 <= 1", "characters"),
        ("", "ends too early"),
    ],
)
def test_anything_else_is_refused_with_its_key(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        constraints_of(["gap(*) <= 1", text], SPLITS, MODELS)
    assert caught.value.problems[0].where == "tune.constraints[1]"
