"""Is what a plugin answered sound? Small questions about answers of any kind."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def is_list_of(kind: Any, values: Any) -> bool:
    """Whether this is a list or tuple (no text) whose members are all of a kind."""
    return isinstance(values, Sequence) and not isinstance(values, str) and all(isinstance(v, kind) for v in values)


def are_contents(found: Any) -> bool:
    """Whether this is a mapping from names; or nothing at all."""
    return isinstance(found or {}, Mapping) and is_list_of(str, list(found or ()))


def shares_memory(made: "torch.Tensor", inputs: Sequence["torch.Tensor"]) -> bool:
    """Whether a tensor lies in the memory of one of the inputs."""
    storage = made.untyped_storage().data_ptr()
    return made.numel() > 0 and any(storage == tensor.untyped_storage().data_ptr() for tensor in inputs)


def kind_of(value: Any) -> str:
    """`float32 of shape [2, 3]`, or the name of a type."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} of shape {list(shape)}"
