"""The fields of adapter_config.json, by what they say of the weights."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelmerger import Problem, amount, shown

from modelmerger_plugins.peft_adapters.reading.kinds import FOLD

MEANINGLESS = {
    # of every adapter: where it comes from, and how it was trained
    *("peft_type", "peft_version", "task_type", "inference_mode", "auto_mapping", "revision"),
    *("base_model_name_or_path", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "bias"),
    # of LoRA's training
    *("lora_dropout", "megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config"),
    *("lora_ga_config", "qalora_group_size", "runtime_config", "ensure_weight_tying"),
    # of the others' training
    *("rank_dropout", "module_dropout", "rank_dropout_scale", "init_weights", "feedforward_modules"),
    *("init_ia3_weights", "decompose_both", "decompose_factor", "projection_prng_key", "vera_dropout", "d_initial"),
    # of trainers that keep notes of their own here: ms-swift, unsloth
    *("lora_dtype", "lorap_lr_ratio", "lorap_emb_lr", "model_key_mapping", "unsloth_fixed"),
}
"""Fields that say nothing about what the stored tensors mean, whatever their value."""
MEANT = {
    *("r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out"),
    *("lora_bias", "init_lora_weights", "trainable_token_indices", "use_effective_conv2d"),
    *("target_parameters", "save_projection", "layer_replication"),
}
"""Fields that are understood."""
NOT_UNDERSTOOD = {
    *("velora_config", "alora_invocation_tokens", "use_qalora", "monteclora_config", "use_bdlora", "arrow_config"),
    "kasa_config",
}
"""Fields of PEFT that change what the stored tensors mean, or are not known well enough to say that they do not."""
LAST_VERSION = (0, 21)
"""The newest version of PEFT whose fields are all known here."""
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})(\D|\Z)", re.ASCII)
_UNSET: tuple[Any, ...] = (None, False, "", [], {})


def of_fields(values: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """What stands against fields that are set and not understood, one problem, and a note of those that PEFT ignores.

    PEFT drops fields that it does not know when it loads an adapter, so they cannot change what it folds: trainers
    write some. A newer PEFT may know them. `path`: of the config's file.
    """
    others = {field: value for field, value in values.items() if field not in MEANINGLESS | MEANT}
    others = {field: value for field, value in others.items() if value not in _UNSET}
    newer = _is_newer(values.get("peft_version"))
    refused = [field for field in others if newer or field in NOT_UNDERSTOOD]
    if refused:
        more = f" (and {amount(len(refused) - 1, 'more such field')})" if len(refused) > 1 else ""
        said = f"sets {shown(refused[0])} to {shown(others[refused[0]], 40)}{more}"
        yield Problem(f"{said}, and what that does to the weights is not known here. {FOLD}.", path)
    elif others:
        names = ", ".join(shown(field, 40) for field in list(others)[:5]) + (", …" if len(others) > 5 else "")
        message = f"sets {names}, which PEFT does not know and ignores, and so does the merge."
        yield Problem(message, path, severity="note")


def _is_newer(version: Any) -> bool:
    """Whether an adapter was saved by a PEFT with fields that may not be known here."""
    match = _VERSION.match(version) if isinstance(version, str) else None
    return match is not None and (int(match[1]), int(match[2])) > LAST_VERSION
