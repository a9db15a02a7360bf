"""Real PEFT adapters of tiny transformers models: made, saved, and merged by PEFT itself as the reference."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modelmerger
import torch
from safetensors.torch import load_file

QWEN = ["q_proj", "v_proj", "o_proj", "down_proj"]


def qwen2() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=90, hidden_size=80, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
        )
    )  # fmt: skip


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=90, n_embd=80, n_layer=2, n_head=4, n_positions=64))


def gpt2_untied() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=90, n_embd=80, n_layer=2, n_head=4, n_positions=64, tie_word_embeddings=False)
    )


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=90, hidden_size=80, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, tie_word_embeddings=True,
        )
    )  # fmt: skip


def qwen3_moe() -> Any:
    """Its file holds each expert's matrices, which are one parameter in memory."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=90, hidden_size=80, intermediate_size=96, moe_intermediate_size=72, num_experts=3,
            num_experts_per_tok=2, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=20,
            max_position_embeddings=64, tie_word_embeddings=False,
        )
    )  # fmt: skip


def mixtral() -> Any:
    """Its file has other names than the model in memory."""
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=90, hidden_size=80, intermediate_size=96, num_local_experts=2, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
        )
    )  # fmt: skip


def gpt_oss() -> Any:
    """Its file holds all experts in one tensor, transposed; those of down_proj are square."""
    from transformers import GptOssConfig, GptOssForCausalLM

    return GptOssForCausalLM(
        GptOssConfig(
            vocab_size=90, hidden_size=80, intermediate_size=80, num_local_experts=2, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=20, max_position_embeddings=64,
            tie_word_embeddings=False,
        )
    )  # fmt: skip


def shake(module: torch.nn.Module, seed: int) -> None:
    """Moves every parameter that is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def make_base(folder: Path, make: Callable[[], Any], seed: int = 0) -> Path:
    model = make()
    shake(model, seed)
    model.save_pretrained(folder)
    return folder


def load_base(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def make_adapter(folder: Path, base: Path, seed: int, **settings: Any) -> Path:
    """A trained adapter: every number of it is random. `settings`: of LoraConfig, or `config=` another one."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = settings.pop("config", None) or LoraConfig(
            **{"r": 4, "lora_alpha": 6, "target_modules": QWEN, **settings}
        )
        model = get_peft_model(load_base(base), config)
        shake(model, seed)
        model.save_pretrained(folder)
    return folder


def by_peft(base: Path, *adapters: Path) -> dict[str, torch.Tensor]:
    """What PEFT makes of it: the base with the adapters merged, one after the other, as it would save it."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_base(base)
        for adapter in adapters:
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        folder = adapters[0].parent / f"by peft {'+'.join(adapter.name for adapter in adapters)}"
        model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def merged(
    output: Path, *models: Path | dict[str, Any], strategy: str = "weighted", **config: Any
) -> dict[str, torch.Tensor]:
    """What we make of it, from the published directory."""
    listed = [model if isinstance(model, dict) else {"path": str(model)} for model in models]
    modelmerger.merge(modelmerger.MergeConfig(strategy=strategy, models=listed, output_path=str(output), **config))
    return load_file(next(output.glob("*model.safetensors")))


def distance(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest number of its tensor."""
    assert found.keys() == wanted.keys()
    return max(
        float((found[name].double() - wanted[name].double()).abs().max() / wanted[name].double().abs().max())
        for name in wanted
    )
