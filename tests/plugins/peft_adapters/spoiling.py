"""Adapters to be spoilt, and merges of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from modelmerger import MergeConfig, ModelMerger
from safetensors.torch import load_file, save_file


def merger(*adapters: Path, **config: Any) -> ModelMerger:
    return ModelMerger(MergeConfig(strategy="weighted", models=[{"path": str(path)} for path in adapters], **config))


def change(adapter: Path, **fields: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_tensors(adapter: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def together(*adapters: Path, strategy: str = "weighted", **config: Any) -> ModelMerger:
    """A merger of their updates."""
    peft = {"merge_adapters": True, **config.pop("peft_config", {})}
    models = [{"path": str(path)} for path in adapters]
    return ModelMerger(MergeConfig(strategy=strategy, models=models, peft_config=peft, **config))
