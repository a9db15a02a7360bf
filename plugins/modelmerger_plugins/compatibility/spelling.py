"""One spelling for what configs say: as transformers 4 and 5 write it, nested or not, without what changes nothing."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelmerger import is_executable

from modelmerger_plugins.special_floats import is_special

WITHOUT_EFFECT = frozenset(
    {
        "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache", "return_dict",
        "torchscript", "problem_type", "finetuning_task", "task_specific_params", "tokenizer_class", "prefix",
        "label2id", "num_labels", "model_max_length", "name", "quantization_config", "compression_config",
        "gradient_checkpointing", "pretraining_tp", "chunk_size_feed_forward", "pruned_heads", "use_bfloat16",
        "tf_legacy_loss", "attn_implementation", "generation_config", "vocab_size", "use_mambapy",
        "use_associative_scan", "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id",
        "reference_compile", "deterministic_flash_attn", "use_flash_attn", "bf16", "fp16", "fp32", "ep_size",
        "num_logits_to_keep",
    }
)  # fmt: skip
"""Keys that change nothing about what the weights compute, or that others compare."""
OF_GENERATION = frozenset(
    {
        "early_stopping", "max_length", "min_length", "max_new_tokens", "do_sample", "num_beams",
        "num_beam_groups", "num_return_sequences", "temperature", "top_k", "top_p", "typical_p",
        "diversity_penalty", "length_penalty", "repetition_penalty", "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens",
        "forced_bos_token_id", "forced_eos_token_id", "forced_decoder_ids", "remove_invalid_values",
        "exponential_decay_length_penalty",
    }
)  # fmt: skip
"""Keys of generation_config.json, which old configs hold too."""
WITHOUT_EFFECT_LIKE = (
    r"^_|^output_|^unsloth|dropout|_pdrop|layerdrop|drop_path|initializer|^init_|_init_|init_std|_loss(_|$)|jitter|"
    r"^use_.*kernel|_implementation$"
)
"""The pattern of such keys."""
ROPE = (
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "rotary_emb_base",
    "global_rope_theta",
    "rope_local_base_freq",
    "local_rope_theta",
    "partial_rotary_factor",
    "rotary_pct",
)
"""Keys about rotary positions, whatever the version."""
ROPE_TYPE = "rope_scaling.rope_type"
SAME_ROPE = {"mrope": "default", "axial": "default", "su": "longrope"}
"""Words for types of positions that one version has and another does without."""
FULL, SLIDING = "full_attention", "sliding_attention"
"""Types of layers, as version 5 calls them."""
SAME_LAYER = {"mamba": "linear_attention"}


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """Key, with its levels before it (`text_config.hidden_size`) → value, for all keys that matter."""
    return dict(_walk(config, ""))


def flattened_alike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both configs flattened.

    Where one has a config of its text model and the other says the same at the top, both say it at the top.
    """
    nested = [isinstance(config.get("text_config"), Mapping) for config in (ours, theirs)]
    if nested[0] != nested[1]:
        ours, theirs = ({**config.get("text_config", {}), **config} for config in (ours, theirs))
    return flattened(ours), flattened(theirs)


def _walk(level: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in _rope(level):
        yield prefix + key, value
    unused = ("sliding_window", "max_window_layers") if level.get("use_sliding_window") is False else ()
    for key, value in level.items():
        if (
            key in WITHOUT_EFFECT
            or key in OF_GENERATION
            or key in ROPE
            or key in unused
            or re.search(WITHOUT_EFFECT_LIKE, key)
        ):
            continue
        if is_executable(key):
            continue
        if isinstance(value, Mapping) and key != "id2label" and not is_special(value):
            yield from _walk(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _plain(key, value, level)


def _plain(key: str, value: Any, level: Mapping[str, Any]) -> Any:
    if key == "model_type" and isinstance(value, str):  # `lfm2-vl`, `Glm4vMoe_text` once
        return value.lower().replace("-", "_").removesuffix("model")
    if key == "num_key_value_heads" and value is None:
        return level.get("num_attention_heads")
    if key.startswith("layer") and isinstance(value, list):
        return [SAME_LAYER.get(entry, entry) if isinstance(entry, str) else entry for entry in value]
    return value


def _rope(level: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Base, scaling and share of the rotary positions, for full attention first; nothing where the level has none."""
    given = level.get("rope_parameters") or level.get("rope_scaling") or {}
    if not isinstance(given, Mapping) or not any(key in level for key in ROPE):
        return
    by_kind = {kind: told for kind, told in given.items() if isinstance(told, Mapping)}
    for kind, told in by_kind.items():
        yield from _rope_of(told, {}, "" if kind == FULL or len(by_kind) == 1 else f" ({kind})")
    if not by_kind:
        yield from _rope_of(given, level, "")
        for key in ("rope_local_base_freq", "local_rope_theta"):
            if level.get(key) is not None:
                yield f"rope_theta ({SLIDING})", level[key]


def _rope_of(told: Mapping[str, Any], level: Mapping[str, Any], of: str) -> Iterator[tuple[str, Any]]:
    both = {**{key: value for key, value in level.items() if key in ROPE}, **told}
    for name, keys in (
        ("rope_theta", ("rope_theta", "rotary_emb_base", "global_rope_theta")),
        ("partial_rotary_factor", ("partial_rotary_factor", "rotary_pct")),
    ):
        found = [both[key] for key in keys if both.get(key) is not None]
        if found:
            yield name + of, found[0]
    kind = told.get("rope_type", told.get("type")) or "default"
    yield ROPE_TYPE + of, SAME_ROPE.get(kind, kind) if isinstance(kind, str) else kind
    for key, value in told.items():
        if key not in ROPE and key not in ("type", "rope_type"):
            yield f"rope_scaling.{key}{of}", value
