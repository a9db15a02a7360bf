"""An adapter that changes nothing is pointed out, whatever kind it is, and read no further than it takes to know."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from modelmerger import FileCheckpoint
from plugins.peft_adapters.spoiling import change_tensors, merger, together
from plugins.peft_adapters.tiny_adapters import make_adapter, merged
from safetensors.torch import load_file


def kinds() -> dict[str, tuple[str, dict[str, Any], str]]:
    """The base, the settings, and what is zero (or one) before training."""
    from peft import IA3Config, LoHaConfig, LoKrConfig, VeraConfig

    layers = ["q_proj", "down_proj"]
    return {
        "lora": ("qwen2", {"target_modules": layers}, "lora_B"),
        "embedding": ("qwen2", {"target_modules": ["embed_tokens"]}, "lora_embedding_A"),
        "experts": ("qwen3_moe", {"target_modules": [], "target_parameters": ["experts.down_proj"]}, "lora_B"),
        "ia3": ("qwen2", {"config": IA3Config(target_modules=layers, feedforward_modules=["down_proj"])}, "ia3_l"),
        "loha": ("qwen2", {"config": LoHaConfig(r=2, target_modules=layers)}, "hada_w2_a"),
        "lokr": ("qwen2", {"config": LoKrConfig(r=2, target_modules=layers, decompose_both=True)}, "lokr_w1"),
        "vera": ("qwen2", {"config": VeraConfig(r=2, target_modules=layers)}, "vera_lambda_b"),
    }


def reset(role: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for key, tensor in tensors.items():
            if role in key:  # −0 where the number was negative
                tensors[key] = torch.ones_like(tensor) if role == "ia3_l" else tensor * 0

    return edit


@pytest.mark.parametrize("kind", kinds())
def test_an_untrained_adapter_is_a_warning(bases: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    name, settings, role = kinds()[kind]
    base = getattr(bases, name)
    adapter = make_adapter(tmp_path / "adapter", base, 1, **settings)
    assert not [note for note in merger(adapter).check_compatibility() if "changes nothing" in note.message]
    change_tensors(adapter, reset(role))
    (found,) = [note for note in merger(adapter).check_compatibility() if "changes nothing" in note.message]
    assert (found.severity, found.where) == ("warning", str(adapter / "adapter_model.safetensors"))
    made, wanted = merged(tmp_path / "merged", adapter), load_file(next(base.glob("*.safetensors")))
    assert all(torch.equal(made[key], tensor) for key, tensor in wanted.items())


def test_one_trained_layer_is_enough(adapter: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        last = max(key for key in tensors if "lora_B" in key)
        kept = tensors[last].clone()
        reset("lora_B")(tensors)
        tensors[last] = kept

    change_tensors(adapter, edit)
    assert not [note for note in merger(adapter).check_compatibility() if "changes nothing" in note.message]


def test_what_was_saved_whole_and_is_the_base_s_own_is_no_change(
    trained: SimpleNamespace, adapter: Path, tmp_path: Path
) -> None:
    stored = load_file(trained.base / "model.safetensors")["model.embed_tokens.weight"]
    key = "base_model.model.model.embed_tokens.weight"
    change_tensors(adapter, lambda tensors: (reset("lora_B")(tensors), tensors.update({key: stored.clone()}))[0])
    assert [note for note in merger(adapter).check_compatibility() if "changes nothing" in note.message]
    change_tensors(adapter, lambda tensors: tensors.update({key: stored + 1}))
    assert not [note for note in merger(adapter).check_compatibility() if "changes nothing" in note.message]


def test_of_merged_updates_the_merge_says_so(trained: SimpleNamespace, adapter: Path, tmp_path: Path) -> None:
    """A check of those reads no factors."""
    change_tensors(adapter, reset("lora_B"))
    both = together(trained.adapter, adapter, output_path=str(tmp_path / "merged"))
    assert not [note for note in both.check_compatibility() if "changes nothing" in note.message]
    (found,) = [note for note in both.plan().notes if "changes nothing" in note.message]
    assert (found.severity, found.where) == ("warning", str(adapter / "adapter_model.safetensors"))


def test_little_of_a_trained_adapter_is_read(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = FileCheckpoint.read

    def reading(self: FileCheckpoint, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        asked.append(tensor)
        read(self, tensor, start, stop, buffer)

    monkeypatch.setattr(FileCheckpoint, "read", reading)
    merger(adapter).check_compatibility()
    assert len(asked) <= 2
