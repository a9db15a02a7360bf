"""How the tensors of adapters are called, and no others: PEFT's, and those of other libraries."""

import re
from collections.abc import Collection

from modelmerger import shown

FACTORS = (
    *("lora_", "ia3_", "hada_", "lokr_", "vera_", "oft_", "boft_", "hra_", "randlora_", "fourierft_", "waveft_"),
    *("bone_", "miss_", "road_", "shira_", "c3a_", "ln_tuning_", "trainable_tokens_", "prompt_embeddings"),
    *("adapter_down", "adapter_up"),
)
"""How the parts of names begin that adapters alone have."""
_LORA = r"(.*_)?lora(\d+|_.*)?"
"""Such parts of LoRA, as any tool calls them: `lora_A`, `to_q_lora`, `lora` before `down` and `up`."""
WRAPPED = "base_layer"
"""The part of a name that a model has whose adapters are in it and not folded: they are as much a part of it."""
ADAPTER_CONFIG = "adapter_config.json"


def holds_adapter(names: Collection[str]) -> str:
    """The sentence that these are an adapter's tensors, by their names; empty where they are a model's."""
    every = "\n".join(names)
    if "lora" not in every and not any(factor in every for factor in FACTORS):  # as in most models
        return ""
    parts = [name.split(".") for name in names]
    factors = [part for name in parts if (part := next(filter(is_factor, name), None)) is not None]
    if not factors or 2 * len(factors) < len(parts) or any(WRAPPED in name for name in parts):
        return ""
    kinds = ", ".join(shown(part, 30) for part in sorted(set(factors))[:2])
    return f"holds the weights of an adapter ({kinds}) and of no model."


def is_factor(part: str) -> bool:
    """Whether this part of a name is what an adapter alone has."""
    return part.startswith(FACTORS) or re.fullmatch(_LORA, part) is not None
