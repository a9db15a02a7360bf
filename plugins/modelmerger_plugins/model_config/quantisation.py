"""A quantisation that the config still names and no weight has, as QLoRA leaves it."""

from collections.abc import Mapping
from typing import Any

from modelmerger import DTYPES, TensorInfo, quantised_tensors

KEYS = ("quantization_config", "compression_config")
WHILE_LOADING = ("bitnet",)
"""Methods whose weights are stored as plain floats, and that are part of the forward pass."""
SCALES = ("weight_scale", "weight_scale_inv", "weight_zero_point", "input_scale", "scale_weight")


def is_left_over(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether the config names a quantisation at any level, while all weights are floats of 16 bits or more."""
    if not _names_one(config) or quantised_tensors(tensors):
        return False
    return not any(_may_be_quantised(name, info) for name, info in tensors.items())


def without_quantisation(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without it, at all levels."""
    return {
        key: without_quantisation(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if not _is_one(key, value)
    }


def _names_one(config: Mapping[str, Any]) -> bool:
    return any(
        _is_one(key, value) or (isinstance(value, Mapping) and _names_one(value)) for key, value in config.items()
    )


def _is_one(key: str, value: Any) -> bool:
    return key in KEYS and isinstance(value, Mapping) and value.get("quant_method") not in WHILE_LOADING


def _may_be_quantised(name: str, info: TensorInfo) -> bool:
    is_matrix = sum(size > 1 for size in info.shape) > 1
    of_integers = is_matrix and DTYPES[info.dtype].family == "integer"
    return of_integers or info.dtype.startswith("F8") or name.endswith(SCALES)
