"""NaN and infinities in configs: objects in config.json, `{"__float__": "NaN"}`, as transformers writes them there."""

from collections.abc import Mapping
from typing import Any

MAY_BE_INFINITE = frozenset({"time_step_limit"})
"""The keys that a config class of transformers gives an infinity by default, which its version 4 wrote as `Infinity`:
those of Mamba2, Bamba, FalconH1, GraniteMoeHybrid and NemotronH; Zamba2 has the key too."""

_TAG = "__float__"
_NAMES = ("NaN", "Infinity", "-Infinity")


def is_special(value: Any) -> bool:
    """Whether this is such an object."""
    return isinstance(value, Mapping) and value.keys() == {_TAG} and value[_TAG] in _NAMES


def bare(value: Any) -> Any:
    """The same, at all levels, with the numbers that such objects stand for."""
    if is_special(value):
        return float(value[_TAG])
    if isinstance(value, Mapping):
        return {key: bare(item) for key, item in value.items()}
    return [bare(item) for item in value] if isinstance(value, list) else value
