"""Adapters merged into an adapter: what PEFT loads of it is the weighted sum of what PEFT makes of each, in float64."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from plugins.peft_adapters.tiny_adapters import gpt2, gpt2_untied, llama, load_base, make_adapter, make_base, qwen2

Deltas = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("bases")
    made = {make.__name__: make_base(folder / make.__name__, make) for make in (qwen2, gpt2, gpt2_untied, llama)}
    return SimpleNamespace(folder=folder, **made)


@pytest.fixture(scope="module")
def three(bases: SimpleNamespace) -> list[Path]:
    """Adapters of qwen2 that share some layers: of other ranks, alphas, patterns, and one rank-stabilised."""
    return [
        make_adapter(bases.folder / "one", bases.qwen2, 1),
        make_adapter(bases.folder / "two", bases.qwen2, 2, r=3, use_rslora=True, target_modules=["q_proj", "up_proj"]),
        make_adapter(
            bases.folder / "three", bases.qwen2, 3, r=2, rank_pattern={"q_proj": 5}, alpha_pattern={"layers.1.*v_proj": 9},
        ),
    ]  # fmt: skip


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
    output: Path, adapters: Sequence[Path], weights: Sequence[float] = (), **config: Any
) -> modelmerger.MergeReport:
    models = [{"path": str(path)} for path in adapters]
    for model, weight in zip(models, weights, strict=False):
        model["weight"] = weight  # type: ignore[assignment]
    settings = {"strategy": "weighted", "peft_config": {"merge_adapters": True}, **config}
    return modelmerger.merge(modelmerger.MergeConfig(models=models, output_path=str(output), **settings))


def combined(parts: Sequence[Deltas], coefficients: Sequence[float]) -> Deltas:
    return {name: sum(c * part[name] for c, part in zip(coefficients, parts, strict=True)) for name in parts[0]}  # type: ignore[misc]


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


STRATEGIES: dict[str, tuple[dict[str, Any], list[float], list[float]]] = {
    "weighted": ({}, [0.5, 0.25, 0.75], [1 / 3, 1 / 6, 1 / 2]),
    "not normalised": ({"options": {"normalize_weights": False}}, [0.5, -0.25, 1.5], [0.5, -0.25, 1.5]),
    "decayed": ({"options": {"weight_decay": 0.1}}, [1, 1, 2], [0.225, 0.225, 0.45]),
    "sequential": ({"strategy": "sequential"}, [1, 0.5, 0.25], [0.375, 0.375, 0.25]),
    "task_arithmetic": (
        {"strategy": "task_arithmetic", "base_model": "base", "options": {"scaling_factor": 0.5}},
        [1, -0.5, 2],
        [0.5, -0.25, 1],
    ),
    "cat": ({"options": {"merge_method": "cat"}}, [1, 1, 1], [1 / 3, 1 / 3, 1 / 3]),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_linear_strategies_add_up_updates(bases: SimpleNamespace, three: list[Path], tmp_path: Path, name: str) -> None:
    config, weights, coefficients = STRATEGIES[name]
    if "base_model" in config:
        config = {**config, "base_model": str(bases.qwen2)}
    report = merge(tmp_path / "merged", three, weights, **config)
    wanted = combined([deltas(bases.qwen2, path) for path in three], coefficients)
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6
    assert report.relative_error is not None
    assert report.relative_error < 1e-6


def test_subtracting_takes_an_update_away(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    models = [{"path": str(three[0])}, {"path": str(three[1]), "weight": -0.5, "operation": "subtract"}]
    config = modelmerger.MergeConfig(
        strategy="task_arithmetic",
        models=models,
        output_path=str(tmp_path / "merged"),
        peft_config={"merge_adapters": True, "base_model_path": str(bases.qwen2)},
    )
    modelmerger.merge(config)
    wanted = combined([deltas(bases.qwen2, path) for path in three[:2]], [1, -0.5])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


@pytest.mark.parametrize("normalize", [True, False])
def test_slerp_turns_updates_along_the_arc(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path, normalize: bool
) -> None:
    options = {"interpolation_factor": 0.3, "normalize_before_slerp": normalize}
    merge(tmp_path / "merged", [three[0], three[2]], strategy="slerp", options=options)
    ours, theirs = deltas(bases.qwen2, three[0]), deltas(bases.qwen2, three[2])
    wanted = {name: slerped(ours[name], theirs[name], 0.3, normalize) for name in ours}
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


def slerped(first: torch.Tensor, second: torch.Tensor, t: float, normalize: bool) -> torch.Tensor:
    norms = first.norm(), second.norm()
    if min(norms) < 1e-8:
        return (1 - t) * first + t * second
    angle = torch.arccos((first * second).sum() / (norms[0] * norms[1]))
    shares = torch.sin((1 - t) * angle) / angle.sin(), torch.sin(t * angle) / angle.sin()
    if not normalize:
        return shares[0] * first + shares[1] * second
    return ((1 - t) * norms[0] + t * norms[1]) * (shares[0] * first / norms[0] + shares[1] * second / norms[1])


KINDS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "embedding": ("qwen2", [{"target_modules": ["embed_tokens", "k_proj"]}, {"r": 3, "target_modules": ["embed_tokens"]}]),
    "tied": ("llama", [{"target_modules": ["gate_proj", "k_proj"]}, {"target_modules": ["k_proj"], "r": 2}]),
    "tied embedding": ("llama", [{"target_modules": ["embed_tokens", "q_proj"]}, {"target_modules": ["q_proj"]}]),
    "conv1d": ("gpt2", [{"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}, {"target_modules": ["c_fc"], "fan_in_fan_out": True, "r": 7}]),
    "biases": ("qwen2", [{"bias": "all"}, {"bias": "lora_only"}]),
    "lora_bias": ("qwen2", [{"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}, {"target_modules": ["v_proj"]}]),
    "modules_to_save": ("qwen2", [{"modules_to_save": ["lm_head", "norm"]}, {"modules_to_save": ["norm"]}]),
    "saved and updated": ("qwen2", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["lm_head", "q_proj"]}]),
    "tokens": ("qwen2", [{"trainable_token_indices": [3, 88, 64]}, {"trainable_token_indices": [7, 64]}]),
    "tokens by module": ("qwen2", [{"trainable_token_indices": {"embed_tokens": [3, 88]}}, {}]),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_update(bases: SimpleNamespace, tmp_path: Path, name: str) -> None:
    kind, settings = KINDS[name]
    base = getattr(bases, kind)
    adapters = [make_adapter(tmp_path / f"{i}", base, i, **each) for i, each in enumerate(settings)]
    merge(tmp_path / "merged", adapters, [2, 1])
    wanted = combined([deltas(base, path) for path in adapters], [2 / 3, 1 / 3])
    assert distance(deltas(base, tmp_path / "merged"), wanted) < 1e-5
