"""Models that MLX has quantised, which look like any other until their tensors are read."""

from collections.abc import Mapping
from typing import Any

_SCALES = ".scales"


def quantised(config: Mapping[str, Any] | None, names: Mapping[str, Any]) -> str | None:
    """What to say of a model with this config and these tensors if MLX quantised it; else None."""
    said = (config or {}).get("quantization")
    if not isinstance(said, Mapping) or "group_size" not in said or not any(n.endswith(_SCALES) for n in names):
        return None
    return (
        f"is quantised by MLX to {said.get('bits')} bits, and such numbers cannot be merged. "
        "Give the model that it was made from, or convert it back with `mlx_lm.convert --dequantize`."
    )
