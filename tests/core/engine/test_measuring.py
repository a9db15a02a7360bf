"""Statistics of whole tensors: the same sum whoever takes it, waited for by those who need it."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from modelmerger import PluginError, Unit
from modelmerger.engine import measuring
from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.measuring import CancelledError, Measurements, measured_blocks
from modelmerger.engine.merge import Merge
from modelmerger.testing import MemoryCheckpoint, Planned, plan_in_memory

GENERATOR = np.random.default_rng(0)
FIRST, SECOND = (torch.from_numpy(GENERATOR.standard_normal((40, 25))).float() for _ in range(2))
ROWS = """
import torch
from modelmerger import Unit
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, 2), needs_base=True, granularity="rowwise")

@hookimpl
def measure_tensor(tensors):
    assert all(tensor.ndim == 2 and tensor.shape[1] == 25 for tensor in tensors)
    return torch.stack([(tensor.double().sum(dim=1) ** 2).sum() for tensor in tensors])

@hookimpl
def merge_tensor(tensors, measurement):
    return tensors[0] * float(measurement[0])
"""
COUNTS = """
import torch
from modelmerger import Unit
from modelmerger import Traits, hookimpl

traits = Traits()

@hookimpl
def measure_tensor(tensors):
    return torch.tensor([int((tensors[0] > 0).sum()), tensors[0].numel()])

@hookimpl
def merge_tensor(tensors, measurement):
    return tensors[0] * (int(measurement[0]) / int(measurement[1]))
"""


@pytest.fixture(autouse=True)
def blocks_of_60_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MEASURED", 60)


@pytest.fixture(autouse=True)
def _installed(distribution: Callable[..., Path]) -> None:
    entry_points = "[modelmerger.strategies]\nrows = acme_rows\ncounts = acme_counts\n"
    distribution("acme", "1.0", entry_points, acme_rows=ROWS, acme_counts=COUNTS)


def measurements(merge: Planned, cancelled: threading.Event | None = None) -> Measurements:
    return Measurements(
        Merge(merge.plan, merge.checkpoints, merge.hooks, merge.settings), cancelled or threading.Event()
    )


def measured(merge: Planned, order: Sequence[int]) -> torch.Tensor:
    """The sum of the first tensor's statistic, its blocks taken in this order."""
    taken = measurements(merge)
    for block in order:
        taken.measure(Unit("measure", 0, block, block + 1), Workspace())
    return taken.result(0)


def test_the_gram_matrix_is_that_of_the_whole_tensors() -> None:
    merge = plan_in_memory("slerp", [{"t": FIRST}, {"t": SECOND}])

    gram = measured(merge, range(17))

    flat = np.stack([FIRST.double().numpy().ravel(), SECOND.double().numpy().ravel()])
    assert gram.dtype == torch.float64
    assert gram.numpy() == pytest.approx(flat @ flat.T, rel=1e-14)


def test_a_sum_does_not_depend_on_the_order_of_its_blocks() -> None:
    """Floating sums do, so that blocks are put in order before they are added up."""
    merge = plan_in_memory("slerp", [{"t": FIRST}, {"t": SECOND}])
    orders = [np.random.default_rng(seed).permutation(17) for seed in range(6)]

    results = [measured(merge, order) for order in (range(17), range(16, -1, -1), *orders)]

    assert all(torch.equal(result, results[0]) for result in results)
    products = [
        float(a @ b) for a, b in zip(FIRST.double().view(-1).split(60), SECOND.double().view(-1).split(60), strict=True)
    ]
    assert len({sum(np.array(products)[order].tolist()) for order in orders}) > 1


def test_rowwise_strategies_are_measured_on_whole_rows_of_all_inputs() -> None:
    base = torch.ones(40, 25)
    merge = plan_in_memory("rows", [{"t": FIRST}, {"t": SECOND}], {"t": base})
    blocks = measured_blocks(merge.plan.tensors[0])

    result = measured(merge, range(blocks))

    assert blocks == 20
    expected = [float((t.double().sum(dim=1) ** 2).sum()) for t in (FIRST, SECOND, base)]
    assert result.tolist() == pytest.approx(expected, rel=1e-13)


def test_counts_are_summed_as_integers() -> None:
    merge = plan_in_memory("counts", [{"t": FIRST}])

    result = measured(merge, range(17))

    assert result.dtype == torch.int64
    assert result.tolist() == [int((FIRST > 0).sum()), 1000]
    expected = (FIRST.double() * (result[0].item() / 1000)).float()
    assert torch.equal(merge.merge()["t"], expected)


def test_who_needs_a_sum_waits_for_its_last_block() -> None:
    merge = plan_in_memory("slerp", [{"t": FIRST}, {"t": SECOND}])
    taken = measurements(merge)
    taken.measure(Unit("measure", 0, 0, 16), Workspace())
    got: list[torch.Tensor] = []
    waiter = threading.Thread(target=lambda: got.append(taken.result(0)))
    waiter.start()
    waiter.join(0.05)
    assert got == []

    taken.measure(Unit("measure", 0, 16, 17), Workspace())
    waiter.join(5)

    assert torch.equal(got[0], measured(merge, range(17)))


def test_who_waits_is_let_go_when_the_merge_is_cancelled() -> None:
    cancelled = threading.Event()
    taken = measurements(plan_in_memory("slerp", [{"t": FIRST}, {"t": SECOND}]), cancelled)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            taken.result(0)
        except CancelledError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    cancelled.set()
    waiter.join(5)

    assert len(errors) == 1


def test_only_what_follows_from_a_sum_is_measured() -> None:
    tensors = {"t": FIRST, "scalar": torch.tensor(1.0), "ids": torch.arange(3)}
    merge = plan_in_memory("slerp", [tensors, {**tensors, "t": SECOND}])
    assert [measurements(merge).measures(i) for i in range(3)] == [True, False, False]

    merge = plan_in_memory("counts", [tensors])
    assert [measurements(merge).measures(i) for i in range(3)] == [True, True, False]

    merge = plan_in_memory("weighted", [tensors])
    assert [measurements(merge).measures(i) for i in range(3)] == [False, False, False]


def test_a_tensor_under_another_name_is_measured_under_it() -> None:
    tied = MemoryCheckpoint("model_1", {"embed": SECOND}, aliases={"head": "embed"})
    merge = plan_in_memory("slerp", [{"head": FIRST, "embed": SECOND}, tied])

    gram = measured(merge, range(17))

    assert float(gram[0, 1]) == pytest.approx(float((FIRST.double() * SECOND.double()).sum()), rel=1e-12)


SHAPED = """
import torch
from modelmerger import Unit
from modelmerger import Traits, hookimpl

traits = Traits()

@hookimpl
def measure_tensor(tensors):
    return tensors[0].double() ** 2

@hookimpl
def merge_tensor(tensors):
    return tensors[0] * 1
"""


def test_a_statistic_that_changes_its_shape_is_the_plugins_fault(distribution: Callable[..., Path]) -> None:
    distribution("acme-shaped", "1.0", "[modelmerger.strategies]\nshaped = acme_shaped\n", acme_shaped=SHAPED)

    with pytest.raises(
        PluginError, match=r"t: strategy 'shaped' from acme-shaped 1\.0: measure_tensor gave another shape"
    ):
        plan_in_memory("shaped", [{"t": FIRST}]).merge()
