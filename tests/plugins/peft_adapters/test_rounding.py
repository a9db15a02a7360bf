"""With torch_dtype float32, adapters of a base in bfloat16 are folded in float64 and rounded once, to the nearest."""

from pathlib import Path
from typing import Any

import modelmerger
import numpy as np
import pytest
import torch
from plugins.peft_adapters.handmade import write_adapter, write_base
from safetensors.torch import load_file, save_file

SHAPES = {"model.layers.0.up": (65, 70), "model.layers.1.up": (7, 65), "model.layers.1.down": (130, 1)}
ROUNDED = 1e-13
"""What the roundings of float64 come to, of numbers of this size: a unit of float32 is 1e-7 of a number."""
MERGES: dict[str, dict[str, Any]] = {
    "each folded": {"strategy": "weighted"},
    "task vectors": {
        "strategy": "task_arithmetic",
        "options": {"scaling_factor": 0.5},
        "peft_config": {"merge_adapters": False},
    },
    "merged, then folded": {
        "strategy": "weighted",
        "options": {"preserve_base_model": False},
        "peft_config": {"merge_adapters": True},
    },
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MERGES)
def test_what_is_written_is_rounded_once(tmp_path: Path, name: str, dtype: str) -> None:
    base = write_base(tmp_path / "base", SHAPES)
    weights = {key: tensor.bfloat16() for key, tensor in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    adapters = [write_adapter(tmp_path / f"{seed}", base, SHAPES, seed, rank=16) for seed in (1, 2)]
    config = {"models": [{"path": str(adapter.path)} for adapter in adapters], **MERGES[name]}
    config["options"] = config.get("options", {}) | {"torch_dtype": dtype}
    modelmerger.merge(modelmerger.MergeConfig(output_path=str(tmp_path / "merged"), **config))

    for key, tensor in load_file(tmp_path / "merged/model.safetensors").items():
        assert tensor.dtype == getattr(torch, dtype)
        updates = [adapter.updates[key.removesuffix(".weight")] for adapter in adapters]
        wanted = weights[key].double().numpy() + 0.5 * (updates[0] + updates[1])
        found = tensor.numpy()
        half_a_unit = np.spacing(np.abs(wanted.astype(found.dtype))).astype(np.float64) / 2
        assert (np.abs(found.astype(np.float64) - wanted) <= half_a_unit + ROUNDED).all()
