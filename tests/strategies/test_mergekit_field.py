"""Agreement with mergekit 0.1.5 in float32, recorded by record_mergekit_field.py, to 1e-6 of the tensor's maximum."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from modelmerger.testing import merge_in_memory
from safetensors.torch import load_file

DATA = Path(__file__).parent / "data" / "mergekit"
RECORDED = json.loads((DATA / "cases_field.json").read_text())
CASES = RECORDED["cases"]
STRATEGIES = {
    "model_stock", "nuslerp", "multislerp", "karcher", "nearswap", "arcee_fusion", "sce", "ram", "ramplus_tl",
    "passthrough",
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_merges_agree_with_mergekit(case: dict[str, Any]) -> None:
    def tensors(name: str) -> dict[str, torch.Tensor]:
        return load_file(DATA / "models" / f"{name}.safetensors")

    expected = load_file(DATA / "expected_field" / f"{case['name']}.safetensors")
    base = tensors(case["base"]) if case["base"] else None

    merged = merge_in_memory(
        case["strategy"],
        [tensors(name) for name in case["models"]],
        base,
        case.get("weights"),
        options={**case["options"], "torch_dtype": "float32"},
    )

    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        assert merged[name].dtype == tensor.dtype == torch.float32
        assert float((merged[name] - tensor).abs().max()) <= 1e-6 * float(tensor.abs().max()), name


def test_the_recordings_cover_every_method_that_mergekit_has_too() -> None:
    assert {case["strategy"] for case in CASES} == STRATEGIES
    assert RECORDED["mergekit"] == "0.1.5"
