"""Tensors that mappings hold under several names: merged once, and tied in the result too."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelmerger.inputs.tensor_bytes import where
from modelmerger.planning.tensor_names import is_head

if TYPE_CHECKING:
    from torch import Tensor


def tied_names(mappings: "Sequence[Mapping[str, Tensor]]") -> dict[str, str]:
    """Names that stand for one tensor in each of the mappings: further name → first name, in the order of the first.

    LM heads are left out: they may be tied in some models and not in others, which a merge knows how to handle.
    """
    first: dict[Any, str] = {}
    further = {}
    for name in mappings[0] if mappings else ():
        found = [mapping.get(name) for mapping in mappings]
        stored = tuple(where(tensor) for tensor in found)
        if any(place is None for place in stored) or is_head(name):
            continue
        if stored in first:
            further[name] = first[stored]
        else:
            first[stored] = name
    return further
