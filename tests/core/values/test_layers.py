"""Ranges of layers, lists of ranges, and lists of layers."""

import pytest
from modelmerger.values.layers.taken import Layers, layer_numbers, layers_problem


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ((0, 3), (0, 1, 2)),
        ((1, 2), (1,)),
        ((5,), (5,)),
        ((0, 2, 4), (0, 2, 4)),
        (((0, 2), (1, 3)), (0, 1, 1, 2)),
        (((0, 2), 3), (0, 1, 3)),
        ((3, (0, 2)), (3, 0, 1)),
    ],
)
def test_layers_one_by_one(given: Layers, numbers: tuple[int, ...]) -> None:
    assert layers_problem(given) is None
    assert layer_numbers(given) == numbers


@pytest.mark.parametrize("given", [(), (3, 1), (2, 2), (-1, 2), (0, 1, -1), ((0, 1, 2),), ((3, 1), (0, 2))])
def test_what_is_no_range_is_refused(given: Layers) -> None:
    assert layers_problem(given)
