"""Adapters merged by strategies whose coefficients follow from inner products, against references on whole updates."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from plugins.peft_adapters.updates import deltas, distance, merge

from tests.strategies import field_references as reference

WEIGHTS = [1.0, 0.5, 2.0]
REFERENCES: dict[str, Callable[[Sequence[np.ndarray], Sequence[float]], np.ndarray]] = {
    "model_stock": lambda updates, _: reference.model_stock(updates),
    "nuslerp": lambda updates, _: reference.nuslerp(updates, 1 / 3),
    "multislerp": reference.multislerp,
    "karcher": reference.karcher,
    "geometric_median": reference.geometric_median,
}


@pytest.mark.parametrize("strategy", REFERENCES)
def test_updates_are_merged_exactly(bases: SimpleNamespace, three: list[Path], tmp_path: Path, strategy: str) -> None:
    adapters = three[:2] if strategy == "nuslerp" else three
    merge(tmp_path / "merged", adapters, [] if strategy == "model_stock" else WEIGHTS, strategy=strategy)
    parts = [deltas(bases.qwen2, path) for path in adapters]
    wanted = {}
    for name in parts[0]:
        updates = [part[name].numpy() for part in parts]
        if all(update.any() for update in updates):  # else there is no direction for the reference
            wanted[name] = torch.from_numpy(REFERENCES[strategy](updates, WEIGHTS))
    assert len(wanted) > 1
    merged = deltas(bases.qwen2, tmp_path / "merged")
    if not any(update.norm() > 0 for update in wanted.values()):
        assert strategy == "model_stock"  # whose cosines are about 0 here, and which leaves the base at 0 and below
        assert all(merged[name].norm() == 0 for name in wanted)
        return
    assert distance(merged, wanted) < 1e-6


def test_a_scale_that_grows_with_the_layer_holds_for_updates(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path
) -> None:
    merge(tmp_path / "merged", three, WEIGHTS, strategy="lines", options={"growth": [0, 0.6]})
    parts = [deltas(bases.qwen2, path) for path in three]
    layers = {name: int(name.split(".")[2]) for name in parts[0] if name.startswith("model.layers.")}
    depth = max(layers.values())
    assert depth > 0
    wanted = {}
    for name, layer in layers.items():
        factor = 1 / 3 + 0.6 * layer / depth
        wanted[name] = sum(factor * w * part[name] for w, part in zip(WEIGHTS, parts, strict=True))
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6
