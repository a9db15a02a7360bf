"""How tensors match a class: as transformers' own loading says it, model by model, with what is missing and too much."""

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from modelmerger_plugins.loading_check.loading import Loading, build, match
from safetensors.torch import load_file

from tests.plugins.test_architectures import ARCHITECTURES, GROUPED, SMALL, VISION

HEADS: dict[str, dict[str, Any]] = {
    "LlamaForSequenceClassification": GROUPED | {"num_labels": 3},
    "BertModel": SMALL,
    "LlavaForConditionalGeneration": {
        "text_config": GROUPED | {"model_type": "llama"},
        "vision_config": VISION | {"patch_size": 14, "model_type": "clip_vision_model"},
    },
    "Qwen2VLForConditionalGeneration": {
        "text_config": GROUPED | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 0]}},
        "vision_config": {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14},
    },
    "BartForConditionalGeneration": {
        "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32,
    },
    "ResNetForImageClassification": {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]},
}  # fmt: skip
MODELS = {name: settings for name, (settings, _) in ARCHITECTURES.items()} | HEADS


def damaged(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without some tensors, others of another shape, and some too much, of which transformers ignores two.

    Experts stay whole: transformers refuses what it cannot join before it says what is missing.
    """
    found = dict(tensors)
    for number, name in enumerate(name for name in tensors if "expert" not in name):
        if number % 5 == 0:
            del found[name]
        elif number % 7 == 0:
            found[name] = torch.ones(3, *tensors[name].shape[1:])
    return found | {
        "strange.weight": torch.ones(2),
        "rotary_emb.inv_freq": torch.ones(2),
        "position_ids": torch.ones(2),
    }


@pytest.mark.parametrize("architecture", MODELS)
def test_it_matches_as_transformers_does(tmp_path: Path, architecture: str) -> None:
    import transformers

    cls = getattr(transformers, architecture)
    made = cls(cls.config_class(**copy.deepcopy(MODELS[architecture])))
    made.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    tensors = load_file(tmp_path / "model.safetensors")
    bare, prefix = made.base_model_prefix, f"{made.base_model_prefix}."
    variants = {
        "whole": tensors,
        "damaged": damaged(tensors),
        "without the base's prefix": {name.removeprefix(prefix): values for name, values in tensors.items()},
        "with a wrapper's prefix": {f"_orig_mod.{name}": values for name, values in tensors.items()},
    }
    model = build(architecture, config)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert (bare, match(model, shapes(tensors)).fits) == (bare, True)
    for what, variant in variants.items():
        _, said = cls.from_pretrained(
            None,
            config=cls.config_class.from_pretrained(tmp_path),
            state_dict={name: values.clone() for name, values in variant.items()},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        found = match(model, shapes(variant))
        assert sorted(found.missing) == sorted(said["missing_keys"]), what
        assert sorted(found.unexpected) == sorted(said["unexpected_keys"]), what
        assert sorted(found.misshaped) == sorted(name for name, *_ in said["mismatched_keys"]), what


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in tensors.items()}


def mixtral(layers: int, experts: int = 4) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """A model built of a config, and the shapes of its tensors as files have them, without those beside the experts."""
    config = GROUPED | {"num_hidden_layers": layers, "num_local_experts": experts, "model_type": "mixtral"}
    found = {
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}.weight": shape
        for layer in range(layers)
        for expert in range(experts)
        for name, shape in {"w1": (24, 16), "w2": (16, 24), "w3": (24, 16)}.items()
    }
    return build("MixtralForCausalLM", config), found


def experts_of(found: Loading) -> tuple[list[str], list[str]]:
    def among(names: Iterable[str]) -> list[str]:
        return sorted(name for name in names if "experts." in name)

    return among(found.missing), among(found.misshaped)


def test_experts_of_equal_layers_are_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelmerger_plugins.loading_check import conversions

    model, found = mixtral(layers=6)
    times = []

    def counted(converter: Any) -> Any:
        times.append(converter)
        return copy.deepcopy(converter)

    monkeypatch.setattr(conversions, "deepcopy", counted)
    assert experts_of(match(model, found)) == ([], [])
    assert len(times) == 2  # w1 and w3 of a layer become one tensor, w2 another


def test_a_layer_whose_experts_are_other_ones_is_told_apart() -> None:
    model, found = mixtral(layers=4)
    del found["model.layers.2.block_sparse_moe.experts.3.w2.weight"]
    found["model.layers.1.block_sparse_moe.experts.0.w1.weight"] = (24, 8)
    assert experts_of(match(model, found)) == (
        ["model.layers.1.mlp.experts.gate_up_proj"],
        ["model.layers.2.mlp.experts.down_proj"],
    )
