"""One module that is merged into in place, again and again, in place of a new model for each vector."""

from collections.abc import Sequence
from typing import Any

import attrs
from blake3 import blake3
from modelmerger import MergeError, merge_tensors

from modelmerger_plugins.tune.opened import Opened

_OF_MODELS = ("merge", "layers")
"""Keys of a model whose numbers change what is opened."""


class OneModule:
    """A model of transformers whose tensors are those of the merge at any numbers."""

    def __init__(self, opened: Opened, model: Any) -> None:
        """model: the merge at some numbers."""
        self._opened, self._model = opened, model
        settings = opened.read.settings
        self._of_strategy = _fields(settings.strategy_options)
        self._of_models = [_fields(told) for told in settings.model_options]

    @classmethod
    def of(cls, opened: Opened, model: Any, vector: Sequence[float]) -> "OneModule | None":
        """None where merging into the model, the merge at this vector, does not give its very numbers.

        The model may then hold others.
        """
        places = [mark.place for mark in opened.space.marks]
        if any(place[0] != "options" and (place[0] != "models" or place[2] in _OF_MODELS) for place in places):
            return None
        found, before = cls(opened, model), _digest(model)
        try:
            found.at(vector)
        except MergeError:
            return None
        return found if _digest(model) == before else None

    def at(self, vector: Sequence[float]) -> Any:
        """The model, with the numbers of the merge at this vector."""
        config = self._opened.space.config_at(vector)
        count = len(config["models"])
        models, base = self._opened.checkpoints[:count], self._opened.checkpoints[count:]
        given = config.get("options") or {}
        merge_tensors(
            config["strategy"],
            models,
            base[0] if base else None,
            weights=[one.get("weight", 1.0) for one in config["models"]],
            model_options=[
                {key: value for key, value in one.items() if key in own}
                for one, own in zip(config["models"], self._of_models, strict=True)
            ],
            options={key: value for key, value in given.items() if key in self._of_strategy or key == "seed"},
            out=self._model,
        )
        return self._model


def _fields(options: Any) -> set[str]:
    return set() if options is None else {field.name for field in attrs.fields(type(options))}


def _digest(model: Any) -> str:
    import torch

    hasher = blake3(max_threads=blake3.AUTO)
    for name, tensor in model.state_dict().items():
        hasher.update(name.encode())
        hasher.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
