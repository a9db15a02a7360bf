"""Tensors that are no weights: counters, positions, and what a class makes for itself and old files store too.

Models of one architecture may differ in which of them they store, and in what form.
"""

from collections.abc import Callable

from modelmerger.planning.mismatches.quantised import is_counter
from modelmerger.values.checkpoint import TensorInfo
from modelmerger.values.dtypes import DTYPES

_MADE = ("inv_freq", "original_inv_freq", "masked_bias", "cos_cached", "sin_cached")
"""What floats are called that follow from the config: frequencies of rotary positions, and what is added to a mask."""
_ATTENTION = ("attn", "attention")
"""How modules are called whose `bias` of four dimensions is a causal mask, as in GPT-2 and GPT-NeoX."""


def is_buffer(name: str, info: TensorInfo, quantised: Callable[[], bool]) -> bool:
    """Whether models may lack this tensor, or store it in another form, so that the donor's is taken.

    quantised: whether any of the models is, since their integers are weights.
    """
    return _is_made(name, info) or (is_counter(name, info) and not quantised())


def _is_made(name: str, info: TensorInfo) -> bool:
    if DTYPES[info.dtype].family != "float":
        return False
    above, _, last = name.rpartition(".")
    is_mask = last == "bias" and above.endswith(_ATTENTION) and len(info.shape) == 4
    return last in _MADE or (is_mask and info.shape[:2] == (1, 1) and info.shape[2] == info.shape[3])
