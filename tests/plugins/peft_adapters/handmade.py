"""Adapters and bases written tensor by tensor, without PEFT, and what each number must become."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from safetensors.numpy import load_file, save_file

PREFIX = "base_model.model."
Shapes = Mapping[str, tuple[int, int]]


@frozen
class Made:
    """An adapter, and the update that it makes of each module, float64."""

    path: Path
    updates: Mapping[str, np.ndarray]


def write_base(folder: Path, shapes: Shapes, seed: int = 0) -> Path:
    folder.mkdir()
    random = np.random.default_rng(seed)
    tensors = {f"{module}.weight": random.normal(size=shape).astype(np.float32) for module, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text("{}")
    return folder


def write_adapter(
    folder: Path, base: Path, shapes: Shapes, seed: int, rank: int = 2, alpha: float = 3.0, rslora: bool = False
) -> Made:
    """A LoRA of these modules of a base."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    scale = alpha / (math.sqrt(rank) if rslora else rank)
    tensors, updates = {}, {}
    for module, (out, into) in shapes.items():
        a, b = (random.normal(size=shape).astype(np.float32) for shape in ((rank, into), (out, rank)))
        tensors |= {f"{PREFIX}{module}.lora_A.weight": a, f"{PREFIX}{module}.lora_B.weight": b}
        updates[module] = scale * (b.astype(np.float64) @ a.astype(np.float64))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": rslora,
        "base_model_name_or_path": str(base),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return Made(folder, updates)


def read_updates(adapter: Path) -> dict[str, np.ndarray]:
    """What a merged adapter changes: its alpha is the rank, for every module, so the products are all there is."""
    config: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["r"], config["rank_pattern"]) == (config["lora_alpha"], config["alpha_pattern"])
    tensors = {key: value.astype(np.float64) for key, value in load_file(adapter / "adapter_model.safetensors").items()}
    modules = {key.removeprefix(PREFIX).partition(".lora_")[0] for key in tensors}
    return {
        module: tensors[f"{PREFIX}{module}.lora_B.weight"] @ tensors[f"{PREFIX}{module}.lora_A.weight"]
        for module in modules
    }
