"""Adapters merged into one that is folded into the base: merge_adapters: true with preserve_base_model: false."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plugins.peft_adapters.tiny_adapters import load_base, make_adapter
from plugins.peft_adapters.updates import combined, deltas, distance, merge
from safetensors.torch import load_file


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "tokens and saved"])
@pytest.mark.parametrize("method", ["linear", "svd"])
def test_folded_into_the_base(bases: SimpleNamespace, tmp_path: Path, kind: str, method: str) -> None:
    """merge_adapters: true with preserve_base_model: false."""
    base = bases.gpt2 if kind == "gpt2" else bases.qwen2
    settings: dict[str, Any] = {"gpt2": {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}}.get(kind, {})
    if kind == "tokens and saved":
        settings = {"trainable_token_indices": [4, 9], "modules_to_save": ["norm"]}
    adapters = [make_adapter(tmp_path / f"{seed}", base, seed, **settings) for seed in (1, 2)]
    merge(tmp_path / "adapter", adapters, [2, 1], options={"merge_method": method, "torch_dtype": "float64"})
    merge(tmp_path / "model", adapters, [2, 1], options={"preserve_base_model": False, "merge_method": method})
    changes = deltas(base, tmp_path / "adapter")
    before, after = (load_file(path / "model.safetensors") for path in (base, tmp_path / "model"))
    assert (tmp_path / "model" / "config.json").exists()
    for name, tensor in before.items():
        wanted = tensor.double() + changes[name]
        assert after[name].dtype == tensor.dtype
        assert float((after[name].double() - wanted).abs().max()) <= 1e-7 * float(wanted.abs().max())


def test_a_base_in_bfloat16(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    """The factors are exact whatever the base is written in; folded, the base's dtype is kept, with one rounding."""
    model = load_base(bases.qwen2).bfloat16()
    model.save_pretrained(tmp_path / "half")
    peft = {"merge_adapters": True, "base_model_path": str(tmp_path / "half")}
    merge(tmp_path / "adapter", three, peft_config=peft)
    wanted = combined([deltas(bases.qwen2, path) for path in three], [1 / 3] * 3)
    assert distance(deltas(bases.qwen2, tmp_path / "adapter"), wanted) < 1e-6
    merge(tmp_path / "model", three, peft_config=peft, options={"preserve_base_model": False})
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("half", "model"))
    for name, tensor in before.items():
        exact = tensor.double() + wanted[name]
        assert after[name].dtype == torch.bfloat16
        assert ((after[name].double() - exact).abs() <= exact.abs() * 2**-8 * (1 + 2**-10) + 1e-6).all()


@pytest.mark.parametrize("writes", ["adapter", "model"])
def test_a_base_in_memory(bases: SimpleNamespace, three: list[Path], tmp_path: Path, writes: str) -> None:
    """The same bytes as with the base on disk; the merged adapter names the base that its sources name."""
    options = {"preserve_base_model": writes == "adapter"}
    report = merge(tmp_path / "live", three, base_model=load_base(bases.qwen2), options=options)
    merge(tmp_path / "disk", three, base_model=str(bases.qwen2), options=options)
    live, disk = (next((tmp_path / name).glob("*model.safetensors")) for name in ("live", "disk"))
    assert live.read_bytes() == disk.read_bytes()
    assert not [note for note in report.notes if "was trained on" in note.message]
    if writes == "adapter":
        config = json.loads((tmp_path / "live" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(bases.qwen2)
