"""The snippet for adapters that users hold in their hands runs as it stands, in a directory that has what it names."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from plugins.peft_adapters.tiny_adapters import load_base, make_adapter, make_base, qwen2

PEFT_ADAPTER_MERGING = """
from modelmerger import ModelMerger, MergeConfig

# Merge LoRA adapters from different training runs
config = MergeConfig(
    strategy="weighted",
    models=[
        {"path": "./adapters/arabic_chat_lora", "weight": 0.6},
        {"path": "./adapters/arabic_qa_lora", "weight": 0.4}
    ],
    output_path="./adapters/merged_arabic_lora",
    peft_config={
        "merge_adapters": True,
        "adapter_names": ["default"],
        "base_model_path": "./models/qwen2.5-3b"
    },
    options={
        "preserve_base_model": True,
        "merge_method": "linear"
    }
)

merger = ModelMerger(config)
merged_adapter = merger.merge()
"""  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = make_base(tmp_path / "models" / "qwen2.5-3b", qwen2)
    for seed, name in enumerate(("arabic_chat_lora", "arabic_qa_lora")):
        make_adapter(tmp_path / "adapters" / name, base, seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(snippet: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(snippet, "snippet", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks transformers for it
def test_adapters_are_merged_into_a_peft_model_that_generates(place: Path) -> None:
    from peft import PeftModel

    merged = run(PEFT_ADAPTER_MERGING)["merged_adapter"]
    assert isinstance(merged, PeftModel)
    tokens = torch.arange(5)[None]
    answer = merged.generate(input_ids=tokens, max_new_tokens=4, do_sample=False)
    loaded = PeftModel.from_pretrained(load_base(place / "models/qwen2.5-3b"), place / "adapters/merged_arabic_lora")
    assert torch.equal(answer, loaded.generate(input_ids=tokens, max_new_tokens=4, do_sample=False))


def test_low_memory_mode_loads_the_base_and_says_so(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    snippet = PEFT_ADAPTER_MERGING.replace('"merge_method"', '"low_memory_mode": True, "merge_method"')
    with caplog.at_level(logging.WARNING, "modelmerger"):
        merged = run(snippet)["merged_adapter"]
    assert "the base of the returned adapter is loaded" in caplog.text
    assert not any(parameter.is_meta for parameter in merged.parameters())


def test_a_base_without_config_gives_no_peft_model(place: Path) -> None:
    from modelmerger import InputError

    (place / "models/qwen2.5-3b/config.json").unlink()
    with pytest.raises(InputError, match=r"has no config.json, so no adapter can be put on it\. Merge it by merge"):
        run(PEFT_ADAPTER_MERGING)
    assert not (place / "adapters/merged_arabic_lora").exists()
