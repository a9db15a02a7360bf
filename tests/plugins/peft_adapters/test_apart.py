"""Adapters apart from their base: the factors of what they add to it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelmerger import Checkpoint, ModelMerger, read_elements
from plugins.peft_adapters.handmade import PREFIX, write_adapter, write_base
from safetensors.numpy import load_file, save_file

SHAPES = {"model.layers.0.q_proj": (6, 4), "model.layers.0.k_proj": (3, 4), "model.layers.0.v_proj": (5, 4)}
Q, K, V = (f"{module}.weight" for module in SHAPES)


def opened(path: Path, **peft: Any) -> Checkpoint:
    config = {"strategy": "weighted", "models": [{"path": str(path)}], "peft_config": peft}
    return next(iter(ModelMerger(config).load_models().values()))


def test_a_changed_tensor_is_that_of_the_base_and_products(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", SHAPES)
    one = {name: shape for name, shape in SHAPES.items() if "v_proj" not in name}
    made = write_adapter(tmp_path / "adapter", base, one, seed=1, alpha=5.0)
    write_adapter(tmp_path / "adapter" / "other", base, {"model.layers.0.q_proj": (6, 4)}, seed=2, rank=3)
    model = opened(made.path, adapter_names=["default", "other"])
    stored = load_file(base / "model.safetensors")
    for name, ranks in ((Q, [2, 3]), (K, [2]), (V, [])):
        found = model.apart(name)
        assert [left.shape[1] for left, _ in found.factors] == ranks
        total = read_elements(found.checkpoint, found.tensor, 0, stored[name].size).view(stored[name].shape)
        np.testing.assert_array_equal(total.numpy(), stored[name])
        for left, right in found.factors:
            total = total + left @ right
        whole = read_elements(model, name, 0, stored[name].size).view(stored[name].shape)
        torch.testing.assert_close(total.to(whole.dtype), whole)
    ((left, right),) = model.apart(K).factors
    np.testing.assert_allclose((left @ right).numpy(), made.updates["model.layers.0.k_proj"], rtol=1e-6)


def test_what_is_changed_otherwise_is_itself(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", SHAPES)
    made = write_adapter(tmp_path / "adapter", base, {"model.layers.0.q_proj": (6, 4)}, seed=1)
    path = made.path / "adapter_model.safetensors"
    save_file({**load_file(path), f"{PREFIX}{V}": np.ones((5, 4), np.float32)}, path, metadata={"format": "pt"})
    model = opened(made.path)
    found = model.apart(V)
    assert (found.checkpoint, found.tensor, found.factors) == (model, V, ())


@pytest.mark.parametrize("name", [Q, K])
def test_a_model_by_itself_is_itself(tmp_path: Path, name: str) -> None:
    model = opened(write_base(tmp_path / "base", SHAPES))
    found = model.apart(name)
    assert (found.checkpoint, found.tensor, found.factors) == (model, name, ())
