"""The kinds of adapters: which of them can be merged, and what can be done with the others."""

from collections.abc import Mapping
from typing import Any

from modelmerger import shown

KINDS = ("LORA", "IA3", "LOHA", "LOKR", "VERA")
"""What can be merged, as `peft_type` says it."""
PROMPTS = (
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE"),
    "ADAPTION_PROMPT",
)
"""What learns a prompt, or what attention sees of one, and no change of a weight."""
DEPENDENT = ("XLORA", "POLY", "SHADOW", "LILY")
"""What changes a model by what it is given to read, so that no weights are the same model."""
FOLD = "Fold it into its base with PEFT (merge_and_unload), then merge the full model"
"""What to do with what PEFT can fold and we cannot."""
_LOAD = "Leave it out, and load it on the merged model with PEFT"


def kind_of(values: Mapping[str, Any]) -> str | None:
    """The kind that a config names, in capitals; None where it names none."""
    kind = values.get("peft_type")
    return kind.upper() if isinstance(kind, str) else None


def against_kind(values: Mapping[str, Any]) -> str | None:
    """What stands against merging an adapter of the kind that its config names, and what to do; None: nothing."""
    kind = kind_of(values)
    if kind in KINDS:
        return None
    if kind is None:
        return _of_others(values)
    said = f"is an adapter of the kind {shown(repr(values['peft_type']))}, which cannot be merged"
    if kind in PROMPTS:
        return f"{said}: it learns a prompt and changes no weight, so nothing can be folded. {_LOAD}."
    if kind in DEPENDENT:
        return f"{said}: what it changes depends on the input, so it cannot be folded. {_LOAD}."
    return f"{said}; {', '.join(KINDS)} can. {FOLD}."


def _of_others(values: Mapping[str, Any]) -> str:
    """The same of a config that PEFT did not write."""
    if "fine_tune_type" in values or "lora_parameters" in values or "lora_layers" in values:
        return (
            "is an adapter of MLX, which names no peft_type. Fuse it with its base "
            "(mlx_lm.fuse --model BASE --adapter-path ADAPTER --de-quantize), then give the full model."
        )
    if "model_class" in values or "config" in values:
        return (
            "is an adapter of AdapterHub, which names no peft_type and may add layers to the model. If it is a LoRA, "
            "fold it with that library (merge_adapter), then give the full model."
        )
    return (
        f"is an adapter of the kind {shown(repr(values.get('peft_type')))}, which cannot be merged: peft_type is "
        f"one of {', '.join(KINDS)} in those that can. If PEFT wrote this one, add it."
    )
