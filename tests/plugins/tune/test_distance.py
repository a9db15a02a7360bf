"""How far numbers are from the start, as coefficients."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelmerger_plugins.tune import MergeTuner
from modelmerger_plugins.tune.distance import OfCoefficients, OfNumbers, distance_of
from modelmerger_plugins.tune.opened import opened, read

from tests.plugins.tune.conftest import Make


def test_a_coefficient_may_be_divided_into_weight_and_scaling_factor_in_any_way(config: Make, tmp_path: Path) -> None:
    """With a penalty that holds back: the same search, whether the scale is in the weights or beside them."""
    search = {"steps": 2, "penalty": 2.0}
    reports = []
    for name, scale in (("beside", 0.25), ("within", 1.0)):
        bound = 0.75 / scale
        given = config(100, mark={"tune": [0, bound], "start": 0.25 / scale}, search=search)
        given["options"]["scaling_factor"] = scale
        reports.append(MergeTuner(given).tune(tmp_path / name))
    beside, within = reports
    assert [trial.cost for trial in beside.trials] == pytest.approx([trial.cost for trial in within.trials], rel=1e-6)
    for one, other in zip(beside.trials, within.trials, strict=True):
        assert 0.25 * np.array(one.vector) == pytest.approx(np.array(other.vector), rel=1e-5)
    last = within.trials[-1]
    away = np.mean((np.array(last.vector) - 0.25) ** 2)
    assert away > 1e-4
    assert last.cost - last.value == pytest.approx(2.0 * away, rel=1e-6)


def test_what_no_number_moves_does_not_count(config: Make) -> None:
    given = config(100, mark={"tune": [0, 3], "start": 1.0, "per": "tensor"})
    given["models"][1]["weight"] = 1.0
    given["models"][2]["weight"] = {"*.mlp.*": {"tune": [0, 3], "start": 1.0}, "default": 1.0}
    found = opened(read(given), 100)
    distance = distance_of(found)
    assert isinstance(distance, OfCoefficients)
    start = np.array(found.space.start)
    assert distance.at(start) == 0
    assert distance.at(start + 0.5) == pytest.approx((0.35 * 0.5) ** 2)
    changes = np.random.default_rng(0).uniform(-1, 1, len(start))
    assert distance.at(start + changes) == pytest.approx(0.35**2 * np.mean(changes**2))


def test_of_an_average_it_is_that_of_the_shares_of_all_models(config: Make) -> None:
    given = config(10, mark={"tune": [0, 3], "start": 1.0, "per": "model"})
    del given["base_model"]
    given |= {"strategy": "weighted", "options": {}}
    distance = distance_of(opened(read(given), 10))
    vector = np.array([0.5, 1.0, 2.5])
    shares = vector / vector.sum()
    assert distance.at(vector) == pytest.approx(np.mean((shares - 1 / 3) ** 2))
    wanted = [(distance.at(vector + step) - distance.at(vector - step)) / 2e-4 for step in 1e-4 * np.eye(3)]
    assert distance.slopes(vector) == pytest.approx(np.array(wanted), rel=1e-5)


def test_it_is_one_whatever_shares_a_number(config: Make) -> None:
    """The same merge is as far from the start, found per model, per layer or per tensor."""
    found = []
    for per in ("model", "layer", "tensor"):
        distance = distance_of(space := opened(read(config(mark={"tune": [0, 3], "start": 1.0, "per": per})), 100))
        by_model = dict(zip(("models[0]", "models[1]", "models[2]"), (0.2, 1.0, 1.7), strict=True))
        found.append(distance.at([by_model[name.partition(".")[0]] for name in space.space.names()]))
    assert found == pytest.approx([0.35**2 * (0.8**2 + 0.7**2) / 3] * 3)


def test_of_a_strategy_that_is_not_linear_it_is_that_of_the_numbers(config: Make) -> None:
    given: dict[str, Any] = config(10, mark={"tune": [0, 3], "start": 1.0, "per": "model"})
    given["strategy"] = "ties"
    distance = distance_of(opened(read(given), 10))
    assert distance == OfNumbers([1.0, 1.0, 1.0])
    assert distance.at([1.0, 2.0, 3.0]) == pytest.approx(5 / 3)
    assert distance.slopes([1.0, 2.0, 3.0]) == pytest.approx([0, 2 / 3, 4 / 3])
