"""Thresholds from a sample and one reading: exact, whatever the sample shows, and as large as they must be."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.cancelling import never
from modelmerger.engine.measuring import Measurer
from modelmerger.engine.merge import Merge
from modelmerger.testing import Planned, plan_in_memory
from modelmerger_strategies.task_vectors import brackets, trimmed

GENERATOR = np.random.default_rng(3)
SHAPE = (90, 71)
COUNT = 90 * 71
KINDS: dict[str, Callable[[], np.ndarray]] = {
    "normal": lambda: GENERATOR.standard_normal(SHAPE),
    "few numbers": lambda: GENERATOR.integers(-3, 4, SHAPE) * 0.25,
    "zeros": lambda: np.zeros(SHAPE),
    "mostly zeros": lambda: GENERATOR.standard_normal(SHAPE) * (GENERATOR.random(SHAPE) < 0.05),
    "rows of many sizes": lambda: GENERATOR.standard_normal(SHAPE) * 10.0 ** GENERATOR.integers(-6, 6, (90, 1)),
    "sorted": lambda: np.sort(GENERATOR.standard_normal(COUNT)).reshape(SHAPE),
}
DENSITIES = (1 / COUNT, 0.01, 0.2, 0.9, 1 - 1 / COUNT)


@pytest.fixture(autouse=True)
def small_blocks_and_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelmerger.planning.measured.MEASURED", 300)
    monkeypatch.setattr("modelmerger.engine.measuring.BLOCKS_A_UNIT", 3)
    monkeypatch.setattr(brackets, "RUN", 10)
    monkeypatch.setattr(brackets, "RUNS", 50)


def planned(numbers: np.ndarray, density: float, strategy: str = "ties", **options: float) -> Planned:
    models = [{"t": torch.from_numpy(numbers).float()}]
    return plan_in_memory(strategy, models, {"t": torch.zeros(SHAPE)}, options={"density": density, **options})


def totals(merge: Planned) -> list[torch.Tensor]:
    measurer = Measurer(Merge(merge.plan, merge.checkpoints, merge.hooks, merge.settings))
    return measurer.measure_all(0, Workspace(), never)


def kept(merge: Planned) -> np.ndarray:
    return merge.merge()["t"].numpy() != 0


def due(numbers: np.ndarray, rank: int) -> np.ndarray:
    """What is at least as large as the magnitude of this rank, by sorting."""
    magnitudes = np.abs(numbers.astype(np.float32))
    return (magnitudes >= np.sort(magnitudes, axis=None)[::-1][rank - 1]) & (magnitudes > 0)


@pytest.fixture(params=["as it is", "brackets that miss", "no room"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "brackets that miss":
        monkeypatch.setattr(brackets, "around", lambda _, ranks, __: [(3, 5) for _ in ranks])
    if request.param == "no room":
        monkeypatch.setattr(brackets, "MOST", -1)
    return request.param


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_threshold_is_exact(kind: str, density: float, how: str) -> None:
    numbers = KINDS[kind]()
    merge = planned(numbers, density, scaling_factor=1.0)

    np.testing.assert_array_equal(kept(merge), due(numbers, max(1, int(density * COUNT))))
    assert len(totals(merge)) in ((2, 4) if how == "as it is" else (4,))


@pytest.mark.parametrize("kind", KINDS)
def test_both_thresholds_are_exact(kind: str, how: str) -> None:
    numbers = KINDS[kind]()
    merge = planned(numbers, 0.6, "breadcrumbs", gamma=0.02, scaling_factor=1.0)

    outliers = int(0.02 * COUNT)
    magnitudes = np.abs(numbers.astype(np.float32))
    most = np.sort(magnitudes, axis=None)[::-1][outliers]
    np.testing.assert_array_equal(kept(merge), due(numbers, outliers + int(0.6 * COUNT)) & (magnitudes <= most))


def test_a_normal_tensor_needs_a_sample_and_one_reading_and_one_for_norms() -> None:
    numbers = KINDS["normal"]()
    merge = planned(numbers, 0.2)

    sample, found, norms = totals(merge)

    (tensor,) = merge.plan.tensors
    assert (tensor.rounds, tensor.measured) == (trimmed.ROUNDS, 500 + 2 * COUNT)
    assert (sample.shape, found.shape, norms.shape) == ((1, 2), (1,), (2,))
    threshold = np.sort(np.abs(numbers.astype(np.float32)), axis=None)[::-1][int(0.2 * COUNT) - 1]
    assert int(found) == threshold.view(np.int32)
    assert sample[0, 0] <= found[0] <= sample[0, 1]


def test_a_tensor_that_is_hardly_larger_than_the_sample_is_read_once() -> None:
    (tensor,) = plan_in_memory("ties", [{"t": torch.ones(1000)}], {"t": torch.zeros(1000)}).plan.tensors
    assert (tensor.rounds, tensor.measured) == (2, 2000)
    assert brackets.sample_of(1000) is None


def test_samples_are_spread_over_the_tensor() -> None:
    runs = brackets.sample_of(1 << 40)
    assert runs is not None
    assert len(runs) == 50
    assert (runs[0][0], runs[-1][1]) == (0, 1 << 40)
    assert all(stop - start == 10 for start, stop in runs)
    steps = {after[0] - before[0] for before, after in zip(runs, runs[1:], strict=False)}
    assert max(steps) - min(steps) <= 1


def test_a_magnitude_that_comes_too_often_is_not_counted() -> None:
    """There are 32 bits for how often one comes."""
    often = torch.tensor([1 << 31, 1, 0, 1, (7 << 32) | 1 << 31])
    twice = brackets.joined([often, often])
    assert brackets.at_ranks(often, [1 << 31]) == [7]
    assert brackets.at_ranks(twice, [1]) == [brackets.UNKNOWN]


def test_parts_are_joined_in_any_order_of_joining() -> None:
    pieces = torch.from_numpy(GENERATOR.integers(-9, 9, 600) / 4).float().split(100)
    parts = [brackets.part([piece], [[1]], [(0, brackets.TOP)]) for piece in pieces]
    once = brackets.joined(parts)
    folded = brackets.joined([brackets.joined(parts[:2]), brackets.joined([*parts[2:5]]), parts[5]])
    assert torch.equal(once, folded)
    magnitudes = np.sort(np.abs(np.concatenate([piece.numpy() for piece in pieces])))[::-1]
    for rank in (1, 299, 600):
        assert brackets.at_ranks(once, [rank]) == [int(magnitudes[rank - 1].view(np.int32))]
    assert math.isclose(brackets.covered(once), 600)
