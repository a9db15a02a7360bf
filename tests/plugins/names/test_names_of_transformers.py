"""Names in memory and on the disk of small models of transformers: told apart by the numbers, which are the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from modelmerger_plugins.names import conversions, file_names
from modelmerger_plugins.names.matching import match
from safetensors.torch import load_file

TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 48,
        "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
EYE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28,
       "patch_size": 14}  # fmt: skip
SEEING = {"depth": 2, "hidden_size": 16, "num_heads": 4, "embed_dim": 16, "mlp_ratio": 2}


def made(kind: str) -> Any:
    import transformers as t

    turned = {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 0]}}
    if kind == "llava":
        config = t.LlavaConfig(
            vision_config=t.CLIPVisionConfig(**EYE), text_config=t.LlamaConfig(**TEXT), image_token_index=5
        )
        return t.LlavaForConditionalGeneration(config)
    if kind == "qwen2_vl":
        config = t.Qwen2VLConfig(text_config=TEXT | turned, vision_config=SEEING)
        return t.Qwen2VLForConditionalGeneration(config)
    if kind == "gemma3":
        config = t.Gemma3Config(text_config=TEXT | {"head_dim": 4}, vision_config=EYE, mm_tokens_per_image=4)
        return t.Gemma3ForConditionalGeneration(config)
    if kind == "vit":
        return t.ViTForImageClassification(t.ViTConfig(**EYE))
    if kind == "dinov2":
        config = t.Dinov2Config(**{key: value for key, value in EYE.items() if key != "intermediate_size"})
        return t.Dinov2ForImageClassification(config)
    if kind == "bert":
        return t.BertForMaskedLM(t.BertConfig(**TEXT))
    return t.MixtralForCausalLM(t.MixtralConfig(num_local_experts=2, **TEXT))


def stored(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def key(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.contiguous().numpy().tobytes()


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "gemma3", "vit", "dinov2", "bert", "mixtral"])
def test_each_name_in_memory_is_that_of_the_same_numbers_on_the_disk(kind: str, tmp_path: Path) -> None:
    model = made(kind)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # so that no two tensors have the same numbers
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    in_memory, on_disk = dict(model.state_dict()), stored(model, tmp_path / "whole")
    on_disk |= {name: tensor for name, tensor in model.named_buffers() if name in on_disk}
    by_numbers = {key(tensor): name for name, tensor in on_disk.items()}
    expected = {name: by_numbers[key(tensor)] for name, tensor in in_memory.items() if key(tensor) in by_numbers}
    once = {name: other for other, name in {other: name for name, other in reversed(expected.items())}.items()}
    tied = set(expected) - set(once)

    found = match(shapes({n: t for n, t in in_memory.items() if n not in tied}), shapes(on_disk), whole=True)
    assert found.names == once
    assert (
        match(shapes(on_disk), shapes(in_memory), whole=True).names.items() >= {b: a for a, b in once.items()}.items()
    )

    for ends in (
        ("q_proj.weight", "v_proj.weight"),
        ("query.weight",),
        ("fc1.weight", "up_proj.weight"),
        ("qkv.weight",),
    ):
        part = [name for name in once if name.endswith(ends)]
        assert file_names(part, shapes(on_disk)) == {name: once[name] for name in part}
    inner = stored(model.base_model, tmp_path / "inner")
    headless = match(shapes(inner), shapes(on_disk), whole=True).names
    assert headless == {name: by_numbers[key(tensor)] for name, tensor in inner.items() if key(tensor) in by_numbers}
    assert len(headless) >= len(inner) - 2  # BERT's pooler is in one of them alone


def renamed(kind: str) -> Any:
    import transformers as t

    if kind == "gpt_neox":
        return t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**TEXT, tie_word_embeddings=False))
    if kind == "phimoe":
        return t.PhimoeForCausalLM(t.PhimoeConfig(num_local_experts=2, **TEXT))
    if kind == "granitemoe":
        return t.GraniteMoeForCausalLM(t.GraniteMoeConfig(num_local_experts=2, **TEXT))
    if kind == "ernie4_5_moe":
        return t.Ernie4_5_MoeForCausalLM(t.Ernie4_5_MoeConfig(moe_num_experts=2, tie_word_embeddings=False, **TEXT))
    sizes = {"depths": [1], "sr_ratios": [2], "hidden_sizes": [8], "patch_sizes": [7], "strides": [4]}
    config = t.SegformerConfig(
        num_encoder_blocks=1, num_attention_heads=[2], mlp_ratios=[2], decoder_hidden_size=8, **sizes
    )
    return t.SegformerForSemanticSegmentation(config)


@pytest.mark.parametrize("kind", ["gpt_neox", "phimoe", "granitemoe", "ernie4_5_moe", "segformer"])
def test_what_transformers_renames_as_it_loads_a_family_is_known_from_its_source(kind: str, tmp_path: Path) -> None:
    model = renamed(kind)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    in_memory, on_disk = dict(model.state_dict()), stored(model, tmp_path / "whole")
    by_numbers = {key(tensor): name for name, tensor in on_disk.items()}
    expected = {name: by_numbers[key(tensor)] for name, tensor in in_memory.items() if key(tensor) in by_numbers}
    config = json.loads((tmp_path / "whole/config.json").read_text())
    if kind != "gpt_neox":  # which not every version renames
        assert any(name != other for name, other in expected.items())

    ours = shapes({name: in_memory[name] for name in expected})
    assert match(ours, shapes(on_disk), whole=True, config=config).names == expected
    assert match(shapes(on_disk), ours, whole=True, config=config).names == {b: a for a, b in expected.items()}


def test_source_of_transformers_that_is_another_renames_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "mapping = {", "mapping = {'phimoe': [WeightRenaming(x, 'y'), WeightRenaming('(', 'y')]}"):
        monkeypatch.setattr(conversions, "source_of_transformers", lambda _, text=text: text)
        conversions._conversions.cache_clear()
        known = conversions.spelled_in_memory({"model_type": "phimoe"})
        assert known is None or known("a.gate.weight") == "a.gate.weight"
    conversions._conversions.cache_clear()
