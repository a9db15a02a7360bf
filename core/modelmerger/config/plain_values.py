"""What programs have in place of plain data (paths, numbers and dtypes of numpy and torch), replaced by what it is."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from modelmerger.config.models_in_memory import MERGE
from modelmerger.values.settings import BASE

_DEEPEST = 100
"""How deep containers lie in each other at most; what lies deeper is refused later."""
_MODELS = ("path", BASE)
"""Keys of which the value may be a model in memory."""


def plain(given: Any, depth: int = 0) -> Any:
    """The value with plain data in place of paths, numbers, vectors, dtypes and devices in its mappings and lists.

    Texts are never taken for anything else, and models in memory stay. What holds nothing of the kind is handed back as
    it is, the very same object.
    """
    if isinstance(given, Mapping) and depth <= _DEEPEST:
        values = {key: _of_key(key, value, depth + 1) for key, value in given.items()}
        return values if any(values[key] is not value for key, value in given.items()) else given
    if isinstance(given, list | tuple) and depth <= _DEEPEST:
        entries = [plain(value, depth + 1) for value in given]
        return entries if any(new is not old for new, old in zip(entries, given, strict=True)) else given
    return plain_value(given)


def plain_value(given: Any) -> Any:
    """A path as a text; a number, a vector, a dtype or a device of numpy or torch as a config has it."""
    if given is None or type(given) in (str, int, float, bool):
        return given
    if isinstance(given, os.PathLike):
        return os.fsdecode(given)
    return _of_torch(_of_numpy(given))


def _of_key(key: Any, value: Any, depth: int) -> Any:
    if key in _MODELS and not (isinstance(value, Mapping) and MERGE in value):
        if isinstance(value, str):
            return str(value)  # numpy's texts are none of Python's
        return os.fsdecode(value) if isinstance(value, os.PathLike) else value
    return plain(value, depth)


def _of_numpy(given: Any) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return given
    if isinstance(given, numpy.generic) or (isinstance(given, numpy.ndarray) and given.ndim < 2):
        return given.tolist()
    if isinstance(given, numpy.dtype) or (isinstance(given, type) and issubclass(given, numpy.generic)):
        return numpy.dtype(given).name
    return given


def _of_torch(given: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is None:
        return given
    if isinstance(given, torch.Tensor):
        return given.tolist() if given.dim() < 2 and not given.is_meta else given
    if isinstance(given, torch.dtype):
        return str(given).removeprefix("torch.")
    return str(given) if isinstance(given, torch.device) else given
