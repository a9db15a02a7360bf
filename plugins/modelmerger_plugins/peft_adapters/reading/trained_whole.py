"""Tensors, or rows of them, that were trained whole."""

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.changes.replaced import Replaced, ReplacedRows
from modelmerger_plugins.peft_adapters.reading.modules import MisfitError
from modelmerger_plugins.peft_adapters.reading.pairing import Pairing


def of_tensor(pair: Pairing, tensor: str, key: str) -> tuple[str, Change]:
    """Base tensor and change: it is replaced. Raises `MisfitError`."""
    if (found := pair.shape_in_base(tensor)) != pair.shape(key):
        raise MisfitError(f"has shape {list(pair.shape(key))}, and '{pair.base.name}' has {list(found)}")
    return tensor, Replaced(key)


def of_rows(pair: Pairing, module: str, key: str) -> tuple[str, Change]:
    """Base tensor and change: the rows that `trainable_token_indices` lists are replaced. Raises `MisfitError`."""
    tensor = f"{module}.weight"
    rows, width = pair.shape_in_base(tensor)
    indices = pair.config.values.get("trainable_token_indices")
    if isinstance(indices, dict):
        matching = [value for name, value in indices.items() if f".{module}".endswith(f".{name}")]
        indices = matching[0] if len(matching) == 1 else None
    sound = isinstance(indices, list) and all(type(i) is int and 0 <= i < rows for i in indices)
    if not sound or pair.shape(key) != (len(indices or ()), width) or len(set(indices or ())) != len(indices or ()):
        raise MisfitError(f"has shape {list(pair.shape(key))}, and does not go with trainable_token_indices")
    return tensor, ReplacedRows(key, tuple(indices or ()))
