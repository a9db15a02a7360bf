"""A search for fine numbers begins with coarse ones."""

import re
from pathlib import Path

import numpy as np
import pytest
from modelmerger_plugins.tune import MergeTuner
from modelmerger_plugins.tune.coordinates import Coordinate, Space
from modelmerger_plugins.tune.fineness import stages
from modelmerger_plugins.tune.marks import Mark

from tests.plugins.tune.conftest import Make

LAYERED = ("model.layers.0.a", "model.layers.0.b", "model.layers.1.a", "model.norm")


def space(*coordinates: tuple[int, str, tuple[str, ...]]) -> Space:
    marks = [Mark(("models", i, "weight"), 0, 3, 1, "tensor") for i in range(2)]
    return Space({}, marks, ["tensor"] * 2, [{}] * 2, [Coordinate(*one) for one in coordinates])


def told(given: Space, steps: int) -> list[tuple[list[int], int]]:
    return [(stage.groups.tolist(), stage.steps) for stage in stages(given, steps)]


def test_numbers_of_tensors_move_by_model_then_by_layer_then_alone() -> None:
    given = space(*((i, name, (name,)) for i in range(2) for name in LAYERED))
    assert told(given, 20) == [
        ([0, 0, 0, 0, 1, 1, 1, 1], 10),
        ([0, 0, 1, 2, 3, 3, 4, 5], 5),
        ([0, 1, 2, 3, 4, 5, 6, 7], 5),
    ]


@pytest.mark.parametrize(("steps", "wanted"), [(1, [1]), (2, [1, 1]), (3, [2, 1]), (4, [2, 1, 1]), (7, [4, 2, 1])])
def test_few_steps_are_for_the_coarse(steps: int, wanted: list[int]) -> None:
    given = space(*((i, name, (name,)) for i in range(2) for name in LAYERED))
    assert [own for _, own in told(given, steps)] == wanted


def test_a_granularity_that_changes_nothing_is_left_out() -> None:
    assert told(space((0, "", LAYERED), (1, "", LAYERED)), 20) == [([0, 1], 20)]
    by_layer = space(
        *((0, group, own) for group, own in (("model.layers.0", LAYERED[:2]), ("model.layers.1", LAYERED[2:3]))),
        (1, "", LAYERED),
    )
    assert told(by_layer, 20) == [([0, 0, 1], 10), ([0, 1, 2], 10)]


def test_a_search_for_fine_numbers_is_that_for_coarse_ones_at_first(config: Make, tmp_path: Path) -> None:
    found = {
        per: MergeTuner(config(100, mark={"tune": [0, 3], "start": 0.4, "per": per}, search={"steps": 6})).tune(
            tmp_path / per
        )
        for per in ("model", "tensor")
    }
    coarse, fine = ([np.array(one.vector) for one in found[per].trials] for per in ("model", "tensor"))
    assert len(fine) == len(coarse) == 7
    count = len(fine[0]) // 3
    for one, other in zip(coarse[:4], fine[:4], strict=True):
        assert np.repeat(one, count) == pytest.approx(other, abs=1e-5)
    by_layer: dict[str, set[float]] = {}
    for name, number in zip(found["tensor"].coordinates, fine[5], strict=True):
        by_layer.setdefault(re.sub(r"(layers\.\d+).*", r"\1", name), set()).add(number)
    assert len(by_layer) < len(fine[5])
    assert {len(numbers) for numbers in by_layer.values()} == {1}
    assert len(set(fine[5])) > len(set(fine[3])) == 3
    assert len(set(fine[6])) > len(by_layer)
