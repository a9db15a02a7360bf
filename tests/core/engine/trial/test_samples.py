"""Which tensors are tried out, and how they are cut."""

from math import prod
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger.engine.trial.samples import SHAPES, SPREAD, cut, samples, spread, trial_plan
from modelmerger.values.tensor_plan import TensorPlan
from modelmerger.values.traits import Granularity


def planned(name: str, shape: tuple[int, ...], granularity: Granularity = "elementwise", **more: Any) -> TensorPlan:
    told = {"action": "merge", "inputs": (0, 1), "coefficients": None, "compute": "F32", **more}
    return TensorPlan(name, "BF16", shape, **told, granularity=granularity)


@pytest.mark.parametrize(
    ("granularity", "shape", "elements", "expected"),
    [
        ("elementwise", (100, 30), 3000, (100, 30)),
        ("elementwise", (100, 30), 299, (9, 30)),
        ("elementwise", (100, 30), 20, (1, 20)),
        ("elementwise", (8, 100, 30), 250, (1, 8, 30)),
        ("elementwise", (5000,), 7, (7,)),
        ("rowwise", (100, 30), 20, (1, 30)),
        ("rowwise", (100, 30), 95, (3, 30)),
        ("whole", (100, 64), 1600, (50, 32)),
        ("whole", (4, 100, 64), 400, (1, 25, 16)),
    ],
)
def test_a_tensor_is_cut_to_about_so_many_elements(
    granularity: Granularity, shape: tuple[int, ...], elements: int, expected: tuple[int, ...]
) -> None:
    tensor = planned("w", shape, granularity)
    found = cut(tensor, elements)
    assert found.shape == expected
    assert (found.name, found.inputs, found.granularity) == (tensor.name, tensor.inputs, granularity)
    assert prod(found.shape) <= tensor.elements


def test_each_kind_and_shape_is_tried_and_stands_for_all_of_its_elements() -> None:
    tensors = [planned(f"{layer}.{rows}", (rows, 8)) for layer in range(4) for rows in range(1, SHAPES + 4)]
    tensors += [planned(f"{layer}.whole", (20 + layer, 30), "whole") for layer in range(3)]
    tensors += [planned("norm", (9,), action="combine", coefficients=(0.5, 0.5)), planned("empty", (0, 4))]
    plan: Any = SimpleNamespace(tensors=tensors)
    found = samples(plan)
    assert [sample.late.name for sample in found if sample.whole] == ["2.whole", "1.whole"]
    assert found[0].whole
    assert sum(sample.share for sample in found) == pytest.approx(sum(t.elements for t in tensors), rel=0.01)
    assert {"norm"} < {sample.late.name for sample in found}
    assert all(sample.early != sample.late for sample in found if len(sample.tensors) > 1)
    assert len(found) == SHAPES + 3


def test_a_little_is_read_of_tensors_from_all_over_a_plan() -> None:
    tensors = [planned(str(number), (number, 1)) for number in range(3 * SPREAD)]
    found = spread(tensors)
    assert len(found) <= SPREAD
    assert found[0].name == "1"
    assert int(found[-1].name) > 3 * SPREAD - 5


def test_the_plan_of_a_trial_has_a_file_for_each_sample(models: SimpleNamespace, config: dict[str, Any]) -> None:
    from modelmerger import MergeConfig, ModelMerger

    plan = ModelMerger(MergeConfig(**config)).plan()
    few = [cut(tensor, 32) for tensor in plan.tensors[:3]]
    found = trial_plan(plan, few)
    assert [file.placements[0].tensor.shape for file in found.layout.files] == [tensor.shape for tensor in few]
    assert found.bytes_written == sum(2 * tensor.elements for tensor in few)
    assert found.workers == 1
