"""Models given as objects: found in a config, and replaced there by a text, so that the rest is plain data."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.settings import BASE

MERGE, MERGES = "merge", "merges"
"""The key of a model that is a merge itself, and the section of merges that paths name."""
DEEPEST = 16
"""How deep merges may lie in each other."""


def set_apart(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config with a text in place of each module, checkpoint and mapping of tensors; and these, by their key.

    Keys are `models[0].path` and `base_model`, in merges within the merge `models[0].merge.models[1].path`.
    """
    live: dict[str, Any] = {}
    return _apart(given, "", live), live


def stand_in(source: Any) -> str:
    """The text in place of an object, which is no valid path: `<Qwen2ForCausalLM in memory>`."""
    kind = "mapping of tensors" if isinstance(source, Mapping) else type(source).__name__
    return f"<{kind} in memory>"


def shown_in_memory(value: Any) -> str:
    """The representation of a part of a config, with a text in place of each model in memory."""
    return repr(_without_live(value))


def _without_live(value: Any) -> Any:
    if is_live(value):
        return stand_in(value)
    if isinstance(value, Mapping):
        return {key: _without_live(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_live(inner) for inner in value]
    return value


def is_live(source: Any) -> bool:
    """Whether this is a checkpoint, a module, or a mapping that holds a tensor.

    Without torch imported, no module and no mapping is.
    """
    if isinstance(source, Checkpoint):
        return True
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    if isinstance(source, Mapping):
        return any(isinstance(value, torch.Tensor) for value in source.values())
    return isinstance(source, torch.nn.Module)


def _apart(given: Mapping[str, Any], where: str, live: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """A merge as plain data. live: gets its objects and those of the merges within it."""
    plain = dict(given)
    if isinstance(models := plain.get("models"), Sequence) and not isinstance(models, str):
        plain["models"] = [_model(model, f"{where}models[{i}]", live, depth) for i, model in enumerate(models)]
    if is_live(base := plain.get(BASE)):
        live[where + BASE], plain[BASE] = base, stand_in(base)
    elif isinstance(base, Mapping) and MERGE in base:
        plain[BASE] = {**base, MERGE: _inner(base[MERGE], f"{where}{BASE}.{MERGE}", live, depth)}
    if isinstance(named := plain.get(MERGES), Mapping):
        plain[MERGES] = {name: _inner(inner, f"{where}{MERGES}.{name}", live, depth) for name, inner in named.items()}
    return plain


def _model(given: Any, where: str, live: dict[str, Any], depth: int) -> Any:
    """An entry of `models` as plain data."""
    if not isinstance(given, Mapping):
        return given
    plain = dict(given)
    if is_live(source := given.get("path")):
        live[f"{where}.path"], plain["path"] = source, stand_in(source)
    if MERGE in given:
        plain[MERGE] = _inner(given[MERGE], f"{where}.{MERGE}", live, depth)
    return plain


def _inner(given: Any, where: str, live: dict[str, Any], depth: int) -> Any:
    """A merge within another one; what is none, or lies too deep, as it is: both are refused later."""
    if not isinstance(given, Mapping) or depth == DEEPEST:
        return given
    return _apart(given, f"{where}.", live, depth + 1)
