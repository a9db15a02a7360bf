"""Tensors, or rows of them, that were trained whole."""

from typing import Any

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.changes.replaced import Replaced, ReplacedRows
from modelmerger_plugins.peft_adapters.reading.misfits import MisfitError
from modelmerger_plugins.peft_adapters.reading.modules import endings
from modelmerger_plugins.peft_adapters.reading.pairing import Pairing


def of_tensor(pair: Pairing, tensor: str, key: str) -> tuple[str, Change]:
    """Base tensor and change: it is replaced. Raises `MisfitError`."""
    tensor = pair.in_base(tensor)
    if pair.shape_in_base(tensor) != (shape := pair.shape(key)):
        raise pair.other_shape(tensor, shape, f"has shape {list(shape)}")
    return tensor, Replaced(key)


def of_rows(pair: Pairing, module: str, key: str) -> tuple[str, Change]:
    """Base tensor and change: the rows that `trainable_token_indices` lists are replaced. Raises `MisfitError`."""
    tensor = pair.in_base(f"{module}.weight")
    found, shape = pair.shape_in_base(tensor), pair.shape(key)
    if len(found) != 2 or len(shape) != 2 or found[1] != shape[1]:
        raise MisfitError(f"has shape {list(shape)}, where rows of {list(found)}, as '{pair.base.name}' has, are due")
    indices = pair.config.values.get("trainable_token_indices")
    if isinstance(indices, dict):
        matching = [indices[name] for name in endings(module) if name in indices]
        indices = matching[0] if len(matching) == 1 else None
    if not isinstance(indices, list) or len(indices) != shape[0] or not _are_rows(indices):
        raise MisfitError(f"has shape {list(shape)}, and does not go with trainable_token_indices")
    if max(indices, default=0) >= found[0]:
        raise pair.other_shape(tensor, (max(indices) + 1, found[1]), f"changes row {max(indices)}")
    return tensor, ReplacedRows(key, tuple(indices))


def _are_rows(indices: list[Any]) -> bool:
    """Whether these are numbers of rows, each once."""
    return all(type(i) is int and i >= 0 for i in indices) and len(set(indices)) == len(indices)
