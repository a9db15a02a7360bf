"""What adapters change of their base, as PEFT folds them in float64, and merges of that."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import modelmerger
import torch
from plugins.peft_adapters.tiny_adapters import load_base

Deltas = dict[str, torch.Tensor]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def deltas(base: Path, adapter: Path) -> Deltas:
    """What an adapter changes of its base, as PEFT folds it in float64; it must load without a word."""
    from peft import PeftModel

    model = load_base(base).double()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)  # as of the sources
        warnings.filterwarnings("ignore", "Model with `tie_word_embeddings=True`", UserWarning)
        model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False).merge_and_unload()
    return {name: tensor.double() - before[name] for name, tensor in model.state_dict().items()}


def merge(
    output: Path, adapters: Sequence[Path], weights: Sequence[Any] = (), **config: Any
) -> modelmerger.MergeReport:
    models: list[dict[str, Any]] = [{"path": str(path)} for path in adapters]
    for model, weight in zip(models, weights, strict=False):
        model["weight"] = weight
    settings = {"strategy": "weighted", "peft_config": {"merge_adapters": True}, **config}
    return modelmerger.merge(modelmerger.MergeConfig(models=models, output_path=str(output), **settings))


def combined(parts: Sequence[Deltas], coefficients: Sequence[float]) -> Deltas:
    """Σ c·update."""
    scaled = [{name: c * update for name, update in part.items()} for c, part in zip(coefficients, parts, strict=True)]
    return {name: torch.stack([part[name] for part in scaled]).sum(0) for name in parts[0]}


def distance(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> float:
    """The largest relative error of an update; what is not changed must not change."""
    return max(
        (
            float((found[name] - wanted[name]).norm() / (wanted[name].norm() or 1))
            for name in wanted
            if wanted[name].norm() > 1e-12 or found[name].norm() > 1e-12
        ),
        default=math.nan,
    )


def slerped(first: torch.Tensor, second: torch.Tensor, t: float, normalize: bool) -> torch.Tensor:
    norms = first.norm(), second.norm()
    if min(norms) < 1e-8:
        return (1 - t) * first + t * second
    angle = torch.arccos((first * second).sum() / (norms[0] * norms[1]))
    shares = torch.sin((1 - t) * angle) / angle.sin(), torch.sin(t * angle) / angle.sin()
    if not normalize:
        return shares[0] * first + shares[1] * second
    return ((1 - t) * norms[0] + t * norms[1]) * (shares[0] * first / norms[0] + shares[1] * second / norms[1])
