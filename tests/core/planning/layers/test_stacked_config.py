"""What config.json says of each layer goes along with the layers, or is refused."""

from typing import Any

import pytest
from modelmerger import InputError, stacked_config

FULL, SLIDING = "full_attention", "sliding_attention"
GEMMA = {"model_type": "gemma2", "num_hidden_layers": 4}


def stacked(config: dict[str, Any], *layers: list[int], others: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    parts = [(other, taken) for other, taken in zip(others or [config] * len(layers), layers, strict=True)]
    return stacked_config(config, parts, "model")


@pytest.mark.parametrize(
    ("config", "layers", "wanted"),
    [
        ({"layer_types": ["a", "b", "c", "d"]}, [[0, 1], [3, 3]], {"layer_types": ["a", "b", "d", "d"]}),
        ({"no_rope_layers": [1, 1, 1, 0]}, [[3], [0]], {"no_rope_layers": [0, 1]}),
        ({"hybrid_override_pattern": "M-M*"}, [[0, 1, 3], [3]], {"hybrid_override_pattern": "M-**"}),
        ({"mlp_only_layers": [1, 2]}, [[1], [0, 2]], {"mlp_only_layers": [0, 2]}),
        ({"first_k_dense_replace": 2}, [[1, 2, 3]], {"first_k_dense_replace": 1}),
        ({"first_k_dense_replace": 2}, [[2, 3]], {"first_k_dense_replace": 0}),
        ({"max_window_layers": 28, "use_sliding_window": False}, [[0, 3]], {"max_window_layers": 28}),
        ({"sliding_window_pattern": 2}, [[0, 1], [2, 3]], {"sliding_window_pattern": 2}),
        ({"sliding_window_pattern": 2}, [[0], [2, 3]], {"layer_types": [SLIDING, SLIDING, FULL]}),
        ({"no_rope_layer_interval": 2}, [[1], [1]], {"no_rope_layers": [0, 0]}),
        (GEMMA, [[0], [2]], {"layer_types": [SLIDING, SLIDING]}),
        ({"hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2}, [[0, 1, 2, 3]], {"num_kv_shared_layers": 2}),
        ({"hidden_size_per_layer_input": 0}, [[2, 1]], {"hidden_size_per_layer_input": 0}),
        ({"decoder_sparse_step": 1}, [[3], [0]], {"decoder_sparse_step": 1}),
        ({"attn_layer_period": 2, "attn_layer_offset": 1}, [[0, 1], [2, 3]], {"attn_layer_period": 2}),
    ],
)
def test_what_is_said_of_layers_goes_along(
    config: dict[str, Any], layers: list[list[int]], wanted: dict[str, Any]
) -> None:
    found = stacked({"num_hidden_layers": 4, **config}, *layers)
    assert found["num_hidden_layers"] == sum(map(len, layers))
    assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("config", "layers", "key"),
    [
        ({"decoder_sparse_step": 2}, [[0, 2]], "decoder_sparse_step"),
        ({"first_k_dense_replace": 1}, [[1, 0]], "first_k_dense_replace"),
        ({"max_window_layers": 2, "use_sliding_window": True}, [[3, 0]], "max_window_layers"),
        ({"attn_layer_period": 2, "attn_layer_offset": 1}, [[0, 2]], "attn_layer_period"),
        ({"num_kv_shared_layers": 2}, [[0, 1, 2]], "num_kv_shared_layers"),
        ({"hidden_size_per_layer_input": 8}, [[0, 1]], "hidden_size_per_layer_input"),
        ({"layer_types": ["a"]}, [[0, 1]], "layer_types"),
    ],
)
def test_what_no_config_can_say_is_refused(config: dict[str, Any], layers: list[list[int]], key: str) -> None:
    with pytest.raises(InputError, match=rf"^model/config.json: '{key}'"):
        stacked({"num_hidden_layers": 4, **config}, *layers)


def test_each_model_says_what_its_own_layers_are() -> None:
    ours = {"num_hidden_layers": 2, "layer_types": ["a", "b"], "mlp_only_layers": [0]}
    theirs = {"num_hidden_layers": 3, "layer_types": ["c", "d", "e"], "mlp_only_layers": [2]}
    found = stacked(ours, [1], [2, 0], others=[ours, theirs])
    assert found == {"num_hidden_layers": 3, "layer_types": ["b", "e", "c"], "mlp_only_layers": [1]}


def test_the_text_model_of_a_larger_one_is_meant() -> None:
    inner = {"num_hidden_layers": 3, "layer_types": ["a", "b", "c"]}
    found = stacked({"text_config": inner, "vision_config": {"num_hidden_layers": 7}}, [2, 0])
    assert found["text_config"] == {"num_hidden_layers": 2, "layer_types": ["c", "a"]}
    assert found["vision_config"] == {"num_hidden_layers": 7}
