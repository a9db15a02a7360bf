"""Adapters name modules as the model in memory does, and the base's file may call them otherwise."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plugins.peft_adapters.handmade import Shapes, write_adapter, write_base
from plugins.peft_adapters.tiny_adapters import merged, shake
from safetensors.numpy import load_file, save_file


def named(name: str, layers: int = 2) -> list[str]:
    return [name.replace("*", str(layer)) for layer in range(layers)]


def pairs(*names: tuple[str, str]) -> dict[str, str]:
    """Module in memory → module in the file."""
    return {ours: theirs for one, other in names for ours, theirs in zip(named(one), named(other), strict=True)}


CASES: dict[str, tuple[dict[str, str], list[str]]] = {
    "llava": (
        pairs(
            (
                "model.language_model.layers.*.self_attn.q_proj",
                "language_model.model.layers.*.self_attn.q_proj",
            ),
            (
                "model.vision_tower.encoder.layers.*.self_attn.q_proj",
                "vision_tower.vision_model.encoder.layers.*.self_attn.q_proj",
            ),
        ),
        ["language_model.model.embed_tokens", "language_model.lm_head", "multi_modal_projector.linear_1"],
    ),
    "qwen2-vl": (
        pairs(
            ("model.language_model.layers.*.self_attn.q_proj", "model.layers.*.self_attn.q_proj"),
            ("model.visual.blocks.*.attn.qkv", "visual.blocks.*.attn.qkv"),
        ),
        ["model.embed_tokens", "lm_head"],
    ),
    "vit": (
        pairs(
            ("vit.layers.*.attention.q_proj", "vit.encoder.layer.*.attention.attention.query"),
            ("vit.layers.*.mlp.fc1", "vit.encoder.layer.*.intermediate.dense"),
        ),
        ["classifier", *named("vit.encoder.layer.*.attention.attention.key")],
    ),
    "with a prefix": (pairs(("transformer.h.*.attn.c_attn", "h.*.attn.c_attn")), ["wte", "wpe"]),
    "without a prefix": (pairs(("layers.*.mlp.up_proj", "model.layers.*.mlp.up_proj")), ["model.embed_tokens"]),
    "with a head of another kind": (
        pairs(("encoder.layer.*.attention.self.query", "bert.encoder.layer.*.attention.self.query")),
        ["bert.embeddings.word_embeddings", "cls.predictions.decoder"],
    ),
    "compiled": (pairs(("model.layers.*.mlp.up_proj", "_orig_mod.model.layers.*.mlp.up_proj")), ["_orig_mod.lm_head"]),
}


def shapes_of(modules: list[str]) -> Shapes:
    """Every module has a shape of its own, so that no change may land elsewhere."""
    return {module: (5 + number, 8) for number, module in enumerate(modules)}


@pytest.mark.parametrize("name", CASES)
def test_updates_land_where_the_file_has_the_module(tmp_path: Path, name: str) -> None:
    names, others = CASES[name]
    shapes = shapes_of([*names.values(), *others])
    base = write_base(tmp_path / "base", shapes)
    made = write_adapter(tmp_path / "adapter", base, {ours: shapes[theirs] for ours, theirs in names.items()}, 1)
    found = merged(tmp_path / "merged", made.path)
    before = load_file(base / "model.safetensors")
    wanted = {f"{names[module]}.weight": update for module, update in made.updates.items()}
    changed = {key for key, tensor in found.items() if not np.array_equal(tensor.numpy(), list_of(before)[plain(key)])}
    assert {plain(key) for key in changed} == {plain(key) for key in wanted}
    for key, tensor in found.items():
        exact = list_of(before)[plain(key)] + {plain(k): v for k, v in wanted.items()}.get(plain(key), 0)
        np.testing.assert_allclose(tensor.numpy(), exact, rtol=1e-6, atol=1e-6)


def plain(name: str) -> str:
    return name.removeprefix("_orig_mod.")


def list_of(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {plain(name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", ["llava", "vit"])
def test_the_merged_adapter_has_the_names_in_memory(tmp_path: Path, name: str) -> None:
    """PEFT loads it on the model in memory. Not every module of a name has factors, so full names are needed."""
    names, others = CASES[name]
    shapes = shapes_of([*names.values(), *others])
    base = write_base(tmp_path / "base", shapes)
    some = dict(list(names.items())[:3])
    ours = {module: shapes[theirs] for module, theirs in some.items()}
    made = [write_adapter(tmp_path / f"adapter {i}", base, ours, i, rank=1 + i) for i in range(2)]
    found = merged(tmp_path / "merged", *(one.path for one in made), peft_config={"merge_adapters": True})
    assert {key.partition(".lora_")[0].removeprefix("base_model.model.") for key in found} == some.keys()
    config = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    partly = {module for module in some if sum(module.endswith(other.rpartition(".")[2]) for other in some) == 1}
    assert partly <= set(config["target_modules"])


def test_what_is_merged_whole_has_the_name_in_memory(tmp_path: Path) -> None:
    names, others = CASES["llava"]
    shapes = shapes_of([*names.values(), *others])
    base = write_base(tmp_path / "base", shapes)
    ours = {module: shapes[theirs] for module, theirs in names.items()}
    made = [write_adapter(tmp_path / f"adapter {i}", base, ours, i).path for i in range(2)]
    key = "base_model.model.model.language_model.embed_tokens.weight"
    matrix = np.ones(shapes["language_model.model.embed_tokens"], np.float32)
    for number, path in enumerate(made):
        file = path / "adapter_model.safetensors"
        save_file(load_file(file) | {key: matrix * number}, file, metadata={"format": "pt"})
    found = merged(tmp_path / "merged", *made, peft_config={"merge_adapters": True})
    np.testing.assert_allclose(found[key].numpy(), matrix / 2, rtol=1e-6)


def test_experts_land_where_the_file_has_their_layer(tmp_path: Path) -> None:
    """No other name tells where the file has `experts.down_proj`: here each expert by itself, under another prefix."""
    layer, experts = "language_model.model.layers.0", "model.language_model.layers.0.mlp.experts"
    shapes = {f"{layer}.mlp.experts.{i}.down_proj": (6, 8) for i in range(2)} | {f"{layer}.self_attn.q_proj": (5, 6)}
    base = write_base(tmp_path / "base", shapes)
    adapter = write_adapter(tmp_path / "adapter", base, {experts: (6, 8)}, 1, rank=2, alpha=2.0)
    config = adapter.path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 1, "target_parameters": ["down_proj"]}))
    found = merged(tmp_path / "merged", adapter.path)
    before, factors = (load_file(next(path.glob("*.safetensors"))) for path in (base, adapter.path))
    a, b = (factors[f"base_model.model.{experts}.lora_{one}.weight"] for one in "AB")
    for i in range(2):
        name = f"{layer}.mlp.experts.{i}.down_proj.weight"
        np.testing.assert_allclose(
            found[name].numpy(), before[name] + 2 * np.outer(b[:, i], a[i]), rtol=1e-5, atol=1e-6
        )


def llava() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    eye = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = LlamaConfig(
        vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=eye, text_config=text, image_token_index=5))


def test_an_adapter_of_a_vision_language_model_folds_as_peft_folds_it(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    model = llava()
    shake(model, 0)
    kind = type(model)
    model.save_pretrained(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "linear_1"], modules_to_save=["lm_head"])
        adapter = get_peft_model(kind.from_pretrained(tmp_path / "base"), settings)
        shake(adapter, 1)
        adapter.save_pretrained(tmp_path / "adapter")
        loaded = PeftModel.from_pretrained(kind.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
        wanted = loaded.merge_and_unload().state_dict()

    config = {"peft_config": {"base_model_path": str(tmp_path / "base")}}
    merged(tmp_path / "merged", tmp_path / "adapter", **config)
    found = kind.from_pretrained(tmp_path / "merged").state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)
