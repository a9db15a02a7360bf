"""Statistics of whole tensors: the same sum whoever takes it, in rounds that see those before them."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelmerger import ConfigError, PluginError
from modelmerger.engine import measuring
from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.cancelling import CancelledError, never
from modelmerger.engine.measuring import Measurer, measured_blocks, measuring_units
from modelmerger.engine.merge import Merge
from modelmerger.testing import MemoryCheckpoint, Planned, plan_in_memory

from tests.core.plugging import install

GENERATOR = np.random.default_rng(0)
FIRST, SECOND = (torch.from_numpy(GENERATOR.standard_normal((40, 25))).float() for _ in range(2))
ROWS = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, 2), needs_base=True, granularity="rowwise")

@hookimpl
def measure_tensor(tensors):
    assert all(tensor.ndim == 2 and tensor.shape[1] == 25 for tensor in tensors)
    return torch.stack([(tensor.double().sum(dim=1) ** 2).sum() for tensor in tensors])

@hookimpl
def merge_tensor(tensors, measurements):
    return tensors[0] * float(measurements[0][0])
"""
COUNTS = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits()

@hookimpl
def measure_tensor(tensors):
    return torch.tensor([int((tensors[0] > 0).sum()), tensors[0].numel()])

@hookimpl
def merge_tensor(tensors, measurements):
    return tensors[0] * (int(measurements[0][0]) / int(measurements[0][1]))
"""
CENTRED = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None), rounds=3)

@hookimpl
def measure_tensor(tensors, round, measurements, shape):
    assert len(measurements) == round
    if round == 2:
        return None
    if round == 0:
        return torch.stack([tensor.double().sum() for tensor in tensors])
    means = measurements[0] / shape[0] / shape[1]
    return torch.stack([((tensor.double() - mean) ** 2).sum() for tensor, mean in zip(tensors, means)])

@hookimpl
def merge_tensor(tensors, measurements):
    assert len(measurements) == 2
    shares = 1 / measurements[1]
    return sum(tensor * float(share / shares.sum()) for tensor, share in zip(tensors, shares))
"""


SAMPLED = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(rounds=4)
asked = []

@hookimpl
def choose_ranges(round, measurements):
    asked.append((round, len(measurements)))
    if round == 0:
        return [(0, 30), (70, 150), (990, 1000)]
    return None if round == 1 else ()

@hookimpl
def measure_tensor(tensors, offset, random):
    return torch.cat([tensors[0].double(), random(0).double(), torch.tensor([offset]).double()])

@hookimpl
def join_measurements(parts, round):
    assert len(parts) > 1
    return torch.cat(list(parts))

@hookimpl
def merge_tensor(tensors, measurements):
    return tensors[0] * 1
"""
ROWS_OF = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(granularity="rowwise")

@hookimpl
def choose_ranges():
    return {ranges}

@hookimpl
def measure_tensor(tensors):
    return tensors[0].double().sum(0)

@hookimpl
def merge_tensor(tensors, measurements):
    return tensors[0] * 1
"""


@pytest.fixture(autouse=True)
def blocks_of_60_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelmerger.planning.measured.MEASURED", 60)
    monkeypatch.setattr(measuring, "BLOCKS_A_UNIT", 3)


@pytest.fixture(autouse=True)
def _installed(distribution: Callable[..., Path]) -> None:
    entry_points = "[modelmerger.strategies]\nrows = acme_rows\ncounts = acme_counts\ncentred = acme_centred\n"
    distribution("acme", "1.0", entry_points, acme_rows=ROWS, acme_counts=COUNTS, acme_centred=CENTRED)


def measurer(merge: Planned) -> Measurer:
    return Measurer(Merge(merge.plan, merge.checkpoints, merge.hooks, merge.settings))


def measured(merge: Planned) -> torch.Tensor:
    """The sum of the first tensor's statistic in its first round."""
    return measurer(merge).measure_all(0, Workspace(), never)[0]


def test_the_gram_matrix_is_that_of_the_whole_tensors() -> None:
    merge = plan_in_memory("slerp", [{"t": FIRST}, {"t": SECOND}])

    gram = measured(merge)

    flat = np.stack([FIRST.double().numpy().ravel(), SECOND.double().numpy().ravel()])
    assert gram.dtype == torch.float64
    assert gram.numpy() == pytest.approx(flat @ flat.T, rel=1e-14)


def test_a_unit_sums_its_blocks_in_order_and_the_tensor_its_units() -> None:
    merge = plan_in_memory("slerp", [{"t": FIRST}, {"t": SECOND}])
    pairs = zip(FIRST.double().view(-1).split(60), SECOND.double().view(-1).split(60), strict=True)
    products = [float(a @ b) for a, b in pairs]
    units = [sum(products[start + 1 : start + 3], products[start]) for start in range(0, 17, 3)]

    assert float(measured(merge)[1, 0]) == sum(units[1:], units[0])
    assert [(unit.first, unit.last) for unit in measuring_units(0, merge.plan.tensors[0], 1)][-1] == (15, 17)


def test_rowwise_strategies_are_measured_on_whole_rows_of_all_inputs() -> None:
    base = torch.ones(40, 25)
    merge = plan_in_memory("rows", [{"t": FIRST}, {"t": SECOND}], {"t": base})

    result = measured(merge)

    assert measured_blocks(merge.plan.tensors[0]) == 20
    expected = [float((t.double().sum(dim=1) ** 2).sum()) for t in (FIRST, SECOND, base)]
    assert result.tolist() == pytest.approx(expected, rel=1e-13)


def test_counts_are_summed_as_integers() -> None:
    merge = plan_in_memory("counts", [{"t": FIRST}])

    result = measured(merge)

    assert result.dtype == torch.int64
    assert result.tolist() == [int((FIRST > 0).sum()), 1000]
    expected = (FIRST.double() * (result[0].item() / 1000)).float()
    assert torch.equal(merge.merge()["t"], expected)


def test_a_round_sees_the_sums_of_those_before_it_and_none_at_all_ends_them() -> None:
    merge = plan_in_memory("centred", [{"t": FIRST}, {"t": SECOND}])

    found = measurer(merge).measure_all(0, Workspace(), never)

    numbers = [tensor.double().numpy() for tensor in (FIRST, SECOND)]
    assert [total.tolist() for total in found] == [
        pytest.approx([n.sum() for n in numbers], rel=1e-13),
        pytest.approx([((n - n.mean()) ** 2).sum() for n in numbers], rel=1e-13),
    ]
    shares = 1 / np.array([n.var() for n in numbers])
    expected = sum(n * share for n, share in zip(numbers, shares / shares.sum(), strict=True))
    assert merge.merge()["t"].double().numpy() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("order", [None, lambda units: list(reversed(units)), lambda units: sorted(units, key=hash)])
@pytest.mark.parametrize("workers", [1, 3])
def test_rounds_give_the_same_bits_in_any_order(order: Callable[..., Any] | None, workers: int) -> None:
    merge = plan_in_memory("centred", [{"t": FIRST}, {"t": SECOND}])
    assert torch.equal(merge.merge(order=order, workers=workers)["t"], merge.merge(workers=1)["t"])


def test_the_plan_counts_the_bytes_of_every_round() -> None:
    size = 2 * FIRST.numel() * 4
    assert plan_in_memory("centred", [{"t": FIRST}, {"t": SECOND}]).plan.bytes_read == 4 * size
    assert plan_in_memory("weighted", [{"t": FIRST}, {"t": SECOND}]).plan.bytes_read == size


def test_a_measurement_is_cut_short_when_the_run_is_cancelled() -> None:
    with pytest.raises(CancelledError):
        measurer(plan_in_memory("slerp", [{"t": FIRST}, {"t": SECOND}])).measure_all(0, Workspace(), lambda: True)


def test_only_what_follows_from_a_sum_is_measured() -> None:
    tensors = {"t": FIRST, "scalar": torch.tensor(1.0), "ids": torch.arange(3)}
    rounds = {
        strategy: [measurer(merge).rounds(i) for i in range(3)]
        for strategy, merge in {
            "slerp": plan_in_memory("slerp", [tensors, {**tensors, "t": SECOND}]),
            "counts": plan_in_memory("counts", [tensors]),
            "centred": plan_in_memory("centred", [tensors]),
            "weighted": plan_in_memory("weighted", [tensors]),
        }.items()
    }
    assert rounds == {"slerp": [1, 0, 0], "counts": [1, 1, 0], "centred": [3, 3, 0], "weighted": [0, 0, 0]}


def test_a_tensor_under_another_name_is_measured_under_it() -> None:
    tied = MemoryCheckpoint("model_1", {"embed": SECOND}, aliases={"head": "embed"})
    merge = plan_in_memory("slerp", [{"head": FIRST, "embed": SECOND}, tied])

    gram = measured(merge)

    assert float(gram[0, 1]) == pytest.approx(float((FIRST.double() * SECOND.double()).sum()), rel=1e-12)


SHAPED = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits()

@hookimpl
def measure_tensor(tensors, offset):
    return {statistic}

@hookimpl
def merge_tensor(tensors):
    return tensors[0] * 1
"""


@pytest.mark.parametrize(
    "statistic",
    [
        "tensors[0].double() ** 2",
        "tensors[0].double().sum() if offset else tensors[0].sum().long()",
    ],
)
def test_a_statistic_that_changes_its_form_is_the_plugins_fault(
    distribution: Callable[..., Path], statistic: str
) -> None:
    source = SHAPED.format(statistic=statistic)
    distribution("acme-shaped", "1.0", "[modelmerger.strategies]\nshaped = acme_shaped\n", acme_shaped=source)

    with pytest.raises(
        PluginError, match=r"t: strategy 'shaped' from acme-shaped 1\.0: measure_tensor gave another shape"
    ):
        plan_in_memory("shaped", [{"t": FIRST}]).merge()


COUNTED = """
import torch
from modelmerger import ConfigError, Traits, hookimpl

traits = Traits(models=(1, None), rounds=2, inputs="updates")

@hookimpl
def count_rounds(weights, model_options, shape):
    assert len(weights) == len(model_options)
    if len(shape) == 3:
        raise ConfigError("three dimensions are too many. Take two")
    return {answer}

@hookimpl
def measure_tensor(tensors, round):
    return torch.stack([tensor.double().sum() for tensor in tensors])

@hookimpl
def merge_tensor(tensors, measurements):
    return tensors[0] * 0 + len(measurements)
"""


def counted(distribution: Callable[..., Path], answer: str, tensor: torch.Tensor, weights: list[Any]) -> Planned:
    install(distribution, [("strategy", "counted", COUNTED.format(answer=answer))], "counter")
    models = [{"v": torch.ones(3), "t": tensor}] * len(weights)
    return plan_in_memory("counted", models, {"v": torch.zeros(3), "t": torch.zeros_like(tensor)}, weights)


def test_a_tensor_is_measured_as_often_as_the_strategy_says(distribution: Callable[..., Path]) -> None:
    merge = counted(distribution, "len(shape)", torch.ones(4, 2), [1, 0])
    merged = merge.merge()
    assert [tensor.rounds for tensor in merge.plan.tensors] == [1, 2]
    assert (merged["v"].unique().tolist(), merged["t"].unique().tolist()) == ([1.0], [2.0])
    assert merge.plan.bytes_read == 2 * 4 * (3 * 2 + 8 * 3)
    assert sum(checkpoint.bytes_read for checkpoint in merge.checkpoints) == merge.plan.bytes_read


def test_without_an_answer_the_traits_hold(distribution: Callable[..., Path]) -> None:
    assert [tensor.rounds for tensor in counted(distribution, "None", torch.ones(2), [1]).plan.tensors] == [2, 2]


def test_nothing_is_measured_where_no_model_has_a_weight(distribution: Callable[..., Path]) -> None:
    merge = counted(distribution, "2", torch.ones(4, 2), [0, {"t": 1, "default": 0}])
    assert [tensor.rounds for tensor in merge.plan.tensors] == [0, 2]
    assert merge.merge()["v"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("answer", ["3", "-1", "True", "1.0"])
def test_rounds_that_the_traits_do_not_have_are_refused(distribution: Callable[..., Path], answer: str) -> None:
    due = "a whole number from 0 to 2, the rounds of its traits, is due"
    with pytest.raises(
        PluginError, match=rf"v: strategy 'counted' from counter 1\.0: count_rounds gave {answer} where {due}"
    ):
        counted(distribution, answer, torch.ones(2), [1])


def test_options_that_make_no_sense_for_a_tensor_are_refused_with_its_name(distribution: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"^t: three dimensions are too many\. Take two$"):
        counted(distribution, "1", torch.ones(1, 1, 1), [1])


def test_a_round_reads_and_measures_what_the_strategy_wants(distribution: Callable[..., Path]) -> None:
    """120 elements in three runs, in blocks of 60 of them; then all 1,000 in 17, and nothing more."""
    (name,) = install(distribution, [("strategy", "sampled", SAMPLED)], "sampled")
    merge = plan_in_memory("sampled", [{"t": FIRST}])
    module = importlib.import_module(name)
    planned = [(number, 0) for number in range(4)]

    assert module.asked == planned
    (tensor,) = merge.plan.tensors
    assert (tensor.rounds, tensor.measured) == (4, 120 + 1000)
    assert merge.plan.bytes_read == 4 * (120 + 1000 + 1000)

    found = measurer(merge).measure_all(0, Workspace(), never)

    values, numbers = FIRST.double().view(-1), merge.random("t", 0).double().view(-1)
    chosen = torch.cat([torch.arange(*ends) for ends in ((0, 30), (70, 150), (990, 1000))])
    places = [chosen.split(60), torch.arange(1000).split(60)]
    for total, blocks in zip(found, places, strict=True):
        expected = [torch.cat([values[block], numbers[block], block[:1].double()]) for block in blocks]
        assert torch.equal(total, torch.cat(expected))
    assert module.asked[4:].count((2, 2)) == 1  # and not once a unit


@pytest.mark.parametrize("ranges", ["[(0, 30)]", "[(50, 25)]", "[(0, 50), (25, 75)]", "[(0, 1025)]", "[3]", "7"])
def test_ranges_are_whole_rows_in_order_within_the_tensor(distribution: Callable[..., Path], ranges: str) -> None:
    install(distribution, [("strategy", "askew", ROWS_OF.format(ranges=ranges))])
    with pytest.raises(PluginError, match=r"choose_ranges gave .* within 1000 elements, in order, in whole rows of 25"):
        plan_in_memory("askew", [{"t": FIRST}])


def test_a_rowwise_strategy_gets_the_rows_that_it_wants(distribution: Callable[..., Path]) -> None:
    install(distribution, [("strategy", "rows_of", ROWS_OF.format(ranges="[(25, 100), (975, 1000)]"))])
    merge = plan_in_memory("rows_of", [{"t": FIRST}])

    assert measured(merge).numpy() == pytest.approx(FIRST.double().numpy()[[1, 2, 3, 39]].sum(0), rel=1e-13)
