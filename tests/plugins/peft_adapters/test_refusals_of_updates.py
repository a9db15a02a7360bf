"""Adapters that cannot be merged into one: one clear sentence each, with what to do instead."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from modelmerger import ConfigError, InputError, MergeConfig, ModelCompatibilityError, ModelMerger, NumericError
from plugins.peft_adapters.spoiling import change_tensors, together
from plugins.peft_adapters.tiny_adapters import make_adapter, make_base, qwen2, qwen3_moe


def test_merged_updates_refuse_parameters_that_differ(trained: SimpleNamespace, tmp_path: Path) -> None:
    base = make_base(tmp_path / "moe", qwen3_moe)
    both, one = (
        make_adapter(tmp_path / name, base, 1, target_modules=[], target_parameters=parameters)
        for name, parameters in {
            "both": ["experts.gate_up_proj", "experts.down_proj"],
            "one": ["experts.down_proj"],
        }.items()
    )
    with pytest.raises(
        ModelCompatibilityError, match=r"has down_proj and down_proj, gate_up_proj changed by different"
    ):
        together(both, one).plan()
    with pytest.raises(ModelCompatibilityError, match=r"of which PEFT makes no weighted sum. Use linear"):
        together(both, options={"merge_method": "peft_linear"}).plan()


def test_keys_that_match_partly_end_a_merge_of_updates(adapter: Path, trained: SimpleNamespace) -> None:
    """C8."""
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    change_tensors(adapter, lambda tensors: tensors.pop(key))
    with pytest.raises(InputError, match=r"layers.1.mlp.down_proj.lora_A.weight: is one of the parts lora_A"):
        together(trained.adapter, adapter).plan()


def test_options_that_contradict_a_merge_of_updates(trained: SimpleNamespace) -> None:
    with pytest.raises(ModelCompatibilityError, match=r"options.rank: belongs to merge_method: svd, and it is linear"):
        together(trained.adapter, options={"rank": 4}).plan()
    with pytest.raises(ModelCompatibilityError, match=r"options.rank: belongs to merge_method: svd, and peft_linear"):
        together(trained.adapter, options={"rank": 4, "merge_method": "peft_linear"}).plan()
    with pytest.raises(
        ModelCompatibilityError, match="is a full model, and merge_adapters: true merges adapters alone"
    ):
        together(trained.adapter, trained.base).plan()
    options = {"clamp_weights": True}
    peft = {"base_model_path": str(trained.base)}
    with pytest.raises(ModelCompatibilityError, match=r"options.clamp_weights: clamps merged weights"):
        together(trained.adapter, strategy="task_arithmetic", options=options, peft_config=peft).plan()


def test_full_models_alone_are_merged_as_ever(trained: SimpleNamespace) -> None:
    notes = together(trained.base, trained.base).check_compatibility()
    assert any("peft_config has no effect" in note.message for note in notes)


@pytest.mark.parametrize("kind", ["DoRA", "IA³", "LoHa", "LoKr"])
def test_updates_that_are_no_low_rank_matrices_are_refused(trained: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    from peft import IA3Config, LoHaConfig, LoKrConfig

    layers = ["q_proj", "v_proj"]
    settings: dict[str, dict[str, Any]] = {
        "DoRA": {"use_dora": True},
        "IA³": {"config": IA3Config(target_modules=layers, feedforward_modules=[])},
        "LoHa": {"config": LoHaConfig(r=2, target_modules=layers)},
        "LoKr": {"config": LoKrConfig(r=2, target_modules=layers)},
    }
    adapter = make_adapter(tmp_path / "adapter", trained.base, 1, **settings[kind])
    with pytest.raises(ModelCompatibilityError, match=f"is a {kind} adapter.*merge_adapters: false") as refusal:
        together(trained.adapter, adapter).plan()
    assert len(refusal.value.problems) == 1


def test_peft_linear_wants_one_rank(trained: SimpleNamespace, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", trained.base, 1, r=3)
    with pytest.raises(ModelCompatibilityError, match="has updates of the ranks 3, 4, and peft_linear"):
        together(trained.adapter, adapter, options={"merge_method": "peft_linear"}).plan()


def test_rows_of_an_embedding_that_another_adapter_changes_otherwise(trained: SimpleNamespace, tmp_path: Path) -> None:
    rows = make_adapter(tmp_path / "rows", trained.base, 1, trainable_token_indices=[1, 2])
    factors = make_adapter(tmp_path / "factors", trained.base, 1, target_modules=["embed_tokens"])
    with pytest.raises(ModelCompatibilityError, match="has some rows replaced by one adapter"):
        together(rows, factors).plan()


@pytest.mark.parametrize("merge_adapters", [True, False])
def test_task_arithmetic_on_adapters_of_different_bases(
    trained: SimpleNamespace, tmp_path: Path, merge_adapters: bool
) -> None:
    """There is no base whose task vectors they all are."""
    other = make_base(tmp_path / "other", qwen2, 5)
    adapter = make_adapter(tmp_path / "second", other, 1)
    peft = {"merge_adapters": merge_adapters}
    with pytest.raises(
        ModelCompatibilityError, match=r"belongs to the base .*other, and 'adapter' to .*base_model_path"
    ):
        together(trained.adapter, adapter, strategy="task_arithmetic", peft_config=peft).check_compatibility()


def test_full_models_bring_no_base(trained: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match=r"task_arithmetic needs base_model.*adapters know theirs"):
        together(trained.base, strategy="task_arithmetic").check_compatibility()


def test_adapters_of_different_bases(trained: SimpleNamespace, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", qwen2, 5)
    adapter = make_adapter(tmp_path / "adapter", other, 1)
    with pytest.raises(
        ModelCompatibilityError, match=r"belongs to the base .*other, and 'adapter' to .*base_model_path"
    ):
        ModelMerger(
            MergeConfig(
                strategy="weighted",
                models=[{"path": str(trained.adapter)}, {"path": str(adapter), "name": "second"}],
                peft_config={"merge_adapters": True},
            )
        ).plan()


@pytest.mark.parametrize("options", [{}, {"allow_nonfinite": True}])
def test_nan_in_an_adapter_ends_a_merge_of_updates(trained: SimpleNamespace, adapter: Path, options: Any) -> None:
    """C1, exit 5."""
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    change_tensors(adapter, lambda tensors: tensors[key].view(-1)[:2].fill_(float("nan")))
    with pytest.raises(NumericError, match="the adapter holds 2 NaNs") as refusal:
        together(trained.adapter, adapter, options=options).plan()
    assert key in str(refusal.value)
    assert str(adapter) in str(refusal.value)


def test_weights_that_leave_nothing(trained: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="nothing would be left"):
        ModelMerger(
            MergeConfig(
                strategy="weighted",
                models=[{"path": str(trained.adapter), "weight": 0}],
                options={"normalize_weights": False},
                peft_config={"merge_adapters": True},
            )
        ).plan()


def test_opposite_updates_have_no_arc_between_them(trained: SimpleNamespace, adapter: Path) -> None:
    def turn(tensors: dict[str, torch.Tensor]) -> None:
        tensors |= {key: -tensor for key, tensor in tensors.items() if "lora_A" in key}

    change_tensors(adapter, turn)
    with pytest.raises(NumericError, match=r"model.layers.0.*opposite directions"):
        together(trained.adapter, adapter, strategy="slerp").plan()
