"""Agreement with mergekit 0.1.5, recorded: `data/mergekit/README.md` says how. Angles there are within |cos| ≤ 0.9995."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from modelmerger.testing import merge_in_memory
from safetensors.torch import load_file

DATA = Path(__file__).parent / "data" / "mergekit"
CASES = json.loads((DATA / "cases.json").read_text())["cases"]
ULPS = {"weighted": 2, "task_arithmetic": 2, "slerp": 8}
"""Units in the last place of float32 at the largest magnitude of the tensor: mergekit computes in float32 with a rounding for each
operation, and loses more of the angle; ours is within half of one."""


def tensors(path: str) -> dict[str, torch.Tensor]:
    return load_file(DATA / path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_merges_agree_with_mergekit(case: dict[str, Any]) -> None:
    expected = tensors(case["expected"])

    merged = merge_in_memory(
        case["strategy"],
        [tensors(model["path"]) for model in case["models"]],
        tensors(case["base_model"]) if case["base_model"] else None,
        [model.get("weight", 1.0) for model in case["models"]],
        [{key: model[key] for key in model.keys() & {"operation"}} for model in case["models"]],
        case["options"],
    )

    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        assert merged[name].dtype == tensor.dtype == torch.float32
        allowed = ULPS[case["strategy"]] * 2.0**-23 * float(tensor.abs().max())
        assert float((merged[name].double() - tensor.double()).abs().max()) <= allowed


def test_the_recordings_cover_the_three_strategies_that_mergekit_has() -> None:
    assert {case["strategy"] for case in CASES} == {"weighted", "task_arithmetic", "slerp"}
    assert any(model.get("operation") == "subtract" for case in CASES for model in case["models"])
    assert {case["options"].get("normalize_weights") for case in CASES if case["strategy"] == "weighted"} == {
        True,
        False,
    }


def test_the_angles_of_the_recordings_are_where_both_take_the_arc() -> None:
    """mergekit changes to linear interpolation beyond |cos| = 0.9995."""
    cosines = []
    for pair in {tuple(model["path"] for model in case["models"]) for case in CASES if case["strategy"] == "slerp"}:
        first, second = (tensors(path) for path in pair)
        for name, tensor in first.items():
            u, v = tensor.double().flatten(), second[name].double().flatten()
            cosines.append(float(u @ v / u.norm() / v.norm()))
    assert max(map(abs, cosines)) <= 0.9995
    assert min(cosines) < -0.5
    assert max(cosines) > 0.5
