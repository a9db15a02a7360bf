"""What a merge of adapters leaves: files that PEFT loads, an object, and what the plan and the report say."""

import json
from pathlib import Path
from types import SimpleNamespace

import modelmerger
import pytest
import torch
from plugins.peft_adapters.tiny_adapters import load_base, make_adapter
from plugins.peft_adapters.updates import combined, deltas, distance, merge
from safetensors.torch import load_file


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 2**-8), ("float16", 2**-11), ("float64", 1e-12)])
def test_factors_are_written_in_torch_dtype(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path, dtype: str, most: float
) -> None:
    report = merge(
        tmp_path / "merged", three, [1, -1, 0.25], options={"torch_dtype": dtype, "normalize_weights": False}
    )
    tensors = load_file(tmp_path / "merged" / "adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {f"torch.{dtype}"}
    wanted = combined([deltas(bases.qwen2, path) for path in three], [1, -1, 0.25])
    found = deltas(bases.qwen2, tmp_path / "merged")
    assert distance(found, wanted) < most
    for name, exact in wanted.items():
        if exact.norm():
            error = float((found[name] - exact).norm() / exact.norm())
            assert report.observed[name]["relative error"] == pytest.approx(error, rel=1e-3, abs=1e-14)


def test_python_gets_a_peft_model(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    """It computes what the adapter does on the base, and is saved as an adapter that another merge can take."""
    from peft import PeftModel

    config = modelmerger.MergeConfig(
        strategy="weighted", models=[{"path": str(path)} for path in three], peft_config={"merge_adapters": True}
    )
    merger = modelmerger.ModelMerger(config)
    model = merger.merge()
    assert isinstance(model, PeftModel)
    assert not model.training
    tokens = torch.arange(12)[None]
    wanted = combined([deltas(bases.qwen2, path) for path in three], [1 / 3] * 3)
    reference = load_base(bases.qwen2).double()
    state = {name: tensor + wanted[name] for name, tensor in reference.state_dict().items()}
    reference.load_state_dict(state)
    with torch.no_grad():
        difference = model(input_ids=tokens).logits.double() - reference(input_ids=tokens).logits
    assert float(difference.abs().max()) < 1e-4
    merger.save_merged_model(model, tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "README.md", "modelmerger.json")
    }
    modelmerger.verify(tmp_path / "saved")
    assert distance(deltas(bases.qwen2, tmp_path / "saved"), wanted) < 1e-6


def test_the_plan_says_what_is_merged(bases: SimpleNamespace, three: list[Path]) -> None:
    models = [{"path": str(path)} for path in three]
    said = {}
    for options in ({}, {"preserve_base_model": False}):
        config = modelmerger.MergeConfig(
            strategy="weighted", models=models, options=options, peft_config={"merge_adapters": True}
        )
        plan = modelmerger.ModelMerger(config).plan()
        assert "weighted of 3 models, of what they change of their base" in str(plan)
        said[plan.writes] = plan.as_dict()["merges"], plan.as_dict()["tensors"][0]["inputs"], plan.layout.files[0].name
    names = ["one", "two", "three"]
    assert said == {
        "adapter": ("updates", names, "adapter_model.safetensors"),
        "model": ("updates", [*names, "qwen2"], "model.safetensors"),
    }
    full = modelmerger.ModelMerger(modelmerger.MergeConfig(strategy="weighted", models=models)).plan()
    assert (full.as_dict()["merges"], full.writes) == ("full weights", "model")


def test_the_config_says_no_more_than_holds_for_all(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapters = [
        make_adapter(tmp_path / f"{seed}", bases.qwen2, seed, task_type="CAUSAL_LM", lora_dropout=seed / 10)
        for seed in (1, 2)
    ]
    merge(tmp_path / "merged", adapters)
    config = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert "lora_dropout" not in config
    assert config["base_model_name_or_path"] == str(bases.qwen2)
    assert config["target_modules"] == ["down_proj", "o_proj", "q_proj", "v_proj"]


def test_layers_that_only_some_modules_of_a_name_have_are_named_in_full(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", bases.qwen2, 1, layers_to_transform=[1])
    merge(tmp_path / "merged", [adapter])
    config = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    assert "model.layers.1.mlp.down_proj" in config["target_modules"]
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), deltas(bases.qwen2, adapter)) < 1e-6


def test_pytorch_files_on_request(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    merge(tmp_path / "merged", three, options={"use_safetensors": False})
    assert (tmp_path / "merged" / "adapter_model.bin").exists()
    wanted = combined([deltas(bases.qwen2, path) for path in three], [1 / 3] * 3)
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


def test_workers_change_no_bit(three: list[Path], tmp_path: Path) -> None:
    for name, options in {"many": {}, "one": {"low_memory_mode": True}}.items():
        merge(tmp_path / name, three, options=options)
    many, one = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("many", "one"))
    assert many == one


def test_the_report_has_the_error_of_full_tensors(bases: SimpleNamespace, tmp_path: Path) -> None:
    """Of what changes, not of the tensor: rounding a tensor that hardly changed may lose much of the change."""
    adapters = [
        make_adapter(
            tmp_path / f"{seed}", bases.qwen2, seed, modules_to_save=["norm"], trainable_token_indices=[seed, 7]
        )
        for seed in (1, 2)
    ]
    report = merge(tmp_path / "merged", adapters, options={"torch_dtype": "bfloat16"})
    wanted = combined([deltas(bases.qwen2, path) for path in adapters], [0.5, 0.5])
    found = deltas(bases.qwen2, tmp_path / "merged")
    for name in ("model.norm.weight", "model.embed_tokens.weight"):
        error = float((found[name] - wanted[name]).norm() / wanted[name].norm())
        assert report.observed[name]["relative error"] == pytest.approx(error, rel=1e-3)
        assert error > 1e-4
