"""Keys of a config.json that say something of each layer, by common practice, and how they say it."""

COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
"""How many layers there are."""
LISTS = (
    *("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "attention_layers", "block_types"),
    *("layer_pattern", "attn_types", "layers_types", "num_key_value_heads_per_layer", "activation_sparsity_pattern"),
)
"""A list with one entry a layer."""
WORDS = ("hybrid_override_pattern",)
"""A text with one letter a layer."""
INDICES = ("mlp_only_layers", "moe_layers", "full_attn_idxs", "attn_layer_indices", "cross_attention_layers")
"""A list of the layers of a kind."""
PERIODS = {
    "sliding_window_pattern": ("layer_types", "full_attention", "sliding_attention"),
    "full_attention_interval": ("layer_types", "full_attention", "linear_attention"),
    "no_rope_layer_interval": ("no_rope_layers", 0, 1),
    "interleave_moe_layer_step": None,
    "decoder_sparse_step": None,
    "global_attn_every_n_layers": None,
}
"""Every n-th layer is of a kind → the list that says the same of each layer, with what stands there for such a layer
and for another one; None where there is no such list."""
OFFSETS = {"attn_layer_period": "attn_layer_offset", "expert_layer_period": "expert_layer_offset"}
"""Every n-th layer, beginning with the one that the other key says."""
FROM_ZERO = ("global_attn_every_n_layers",)
"""Those of `PERIODS` in which layer 0 is of the kind; in the others, layer n − 1 is the first."""
BEFORE, BEHIND = ("first_k_dense_replace",), ("max_window_layers",)
"""The layers before this one are of a kind, and those from it on."""
IN_ONE_MATRIX = "hidden_size_per_layer_input"
"""How wide the part is that each layer has of one matrix, unless that is 0."""
WHOLE = ("num_kv_shared_layers", IN_ONE_MATRIX)
"""So many of the last layers are of a kind; each layer has a part of one matrix. Such layers stay as they are."""
IMPLIED = {
    **dict.fromkeys(("gemma2",), ("sliding_window_pattern", 2)),
    **dict.fromkeys(("gemma3", "gemma3_text", "gemma3n_text"), ("sliding_window_pattern", 6)),
    **dict.fromkeys(("cohere2", "olmo3"), ("sliding_window_pattern", 4)),
    "smollm3": ("no_rope_layer_interval", 4),
    "qwen3_next": ("full_attention_interval", 4),
}
"""The type of a model → a key of `PERIODS`, and its number where the config leaves it out."""
