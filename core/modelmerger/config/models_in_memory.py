"""Models given as objects: found in a config, and replaced there by a text, so that the rest is plain data."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.settings import BASE, key_of_model


def set_apart(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config with a text in place of each module, checkpoint and mapping of tensors; and these, by their key.

    Keys are `models[0].path` and `base_model`.
    """
    plain, live = dict(given), dict(_live(given))
    if BASE in live:
        plain[BASE] = stand_in(live[BASE])
    models = given.get("models")
    if isinstance(models, Sequence) and not isinstance(models, str):
        plain["models"] = [
            {**model, "path": stand_in(live[key])} if (key := key_of_model(i)) in live else model
            for i, model in enumerate(models)
        ]
    return plain, live


def stand_in(source: Any) -> str:
    """The text in place of an object, which is no valid path: `<Qwen2ForCausalLM in memory>`."""
    kind = "mapping of tensors" if isinstance(source, Mapping) else type(source).__name__
    return f"<{kind} in memory>"


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


def _live(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if is_live(given.get(BASE)):
        yield BASE, given[BASE]
    models = given.get("models")
    if isinstance(models, Sequence) and not isinstance(models, str):
        for index, model in enumerate(models):
            if isinstance(model, Mapping) and is_live(model.get("path")):
                yield key_of_model(index), model["path"]
