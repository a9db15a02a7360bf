"""Checks that the answers of plugins to several hooks need."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelmerger.values.checkpoint import TensorInfo
from modelmerger.values.dtypes import DTYPES

if TYPE_CHECKING:
    import torch


def is_list_of(kind: Any, values: Any) -> bool:
    """Whether this is a list or tuple, not a text, whose members are all of a kind."""
    return isinstance(values, Sequence) and not isinstance(values, str) and all(isinstance(v, kind) for v in values)


def are_contents(found: Any) -> bool:
    """Whether this is a mapping from names, or nothing."""
    return isinstance(found or {}, Mapping) and is_list_of(str, list(found or ()))


def plain_json(found: Any) -> dict[str, Any] | None:
    """A copy of a JSON object as its file would give it back; None for anything else, or what JSON cannot hold."""
    try:
        copy = json.loads(json.dumps(found, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None
    return copy if isinstance(copy, dict) else None


def are_shares(found: Any) -> bool:
    """Whether this is a mapping from paths to finite numbers, of one path at least."""
    if not isinstance(found, Mapping) or not found or not is_list_of(str, list(found)) or not all(found):
        return False
    return is_list_of((int, float), list(found.values())) and are_finite(found.values())


def are_finite(numbers: Iterable[Any]) -> bool:
    """Whether none of these is a NaN or an infinity."""
    return all(math.isfinite(number) for number in numbers if isinstance(number, float))


def fault_of_tensors(checkpoint: Any) -> tuple[str, str, str] | None:
    """What is wrong with what a checkpoint says of its tensors: what it gave, what is due, and the tensor in question.

    None where it is sound.
    """
    tensors = getattr(checkpoint, "tensors", None)
    if not isinstance(tensors, Mapping):
        return f"the tensors {tensors!r}", "TensorInfo by name", ""
    for name, info in tensors.items():
        if type(name) is not str:
            return f"a tensor with the name {name!r}", "names that are texts", ""
        if not isinstance(info, TensorInfo):
            return f"{info!r}", "a TensorInfo", name
        if unknown := {info.dtype, info.written} - DTYPES.keys():
            return f"the dtype {min(map(str, unknown))!r}", "one that safetensors has", name
        shape: Any = info.shape
        if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
            return f"the shape {shape!r}", "a tuple of whole numbers", name
    return None


def shares_memory(made: "torch.Tensor", inputs: Sequence["torch.Tensor"]) -> bool:
    """Whether a tensor shares memory with one of the inputs."""
    storage = made.untyped_storage().data_ptr()
    return made.numel() > 0 and any(storage == tensor.untyped_storage().data_ptr() for tensor in inputs)


def versions(tensors: Sequence["torch.Tensor"]) -> list[int]:
    """How often each tensor was changed in place so far, as torch counts it."""
    return [tensor._version for tensor in tensors]  # noqa: SLF001 (what torch has for it)


def is_dense(value: Any) -> bool:
    """Whether a tensor has its numbers in memory, one after the other."""
    strided = str(getattr(value, "layout", "")) == "torch.strided" and not value.is_nested
    return strided and value.device.type != "meta"


def kind_of(value: Any) -> str:
    """The dtype and shape of a tensor, `float32 of shape [2, 3]`, or the type of anything else, for messages."""
    if getattr(value, "is_nested", False):
        return "a nested tensor"  # which has no shape, and fails where it is asked for one
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__name__
    said = f"{str(value.dtype).removeprefix('torch.')} of shape {list(shape)}"
    return said if is_foreign(value) or is_dense(value) else f"{said} that is sparse or has no memory"


def is_foreign(value: Any) -> bool:
    """Whether this has shape and dtype, and is no tensor of torch."""
    return not hasattr(value, "untyped_storage") and hasattr(value, "shape")


def not_a_tensor(value: Any) -> str:
    """What to add to a message about something that looks like a tensor and is another library's."""
    return f" (it is a {type(value).__module__}.{type(value).__qualname__})" if is_foreign(value) else ""


def is_pair(found: Any) -> bool:
    """Whether this is two whole numbers. A sample has hundreds of pairs, so that the usual kind is looked at first."""
    if type(found) is tuple and len(found) == 2 and type(found[0]) is int and type(found[1]) is int:
        return True
    return isinstance(found, Sequence) and len(found) == 2 and is_list_of(int, list(found))
