"""Names for models that were given none: as short as possible, and unique."""

import os
from collections.abc import Container, Sequence
from pathlib import PurePath

from attrs import evolve

from modelmerger.config.models_in_memory import MERGES
from modelmerger.values.model_reference import ModelReference, user_path
from modelmerger.values.settings import BASE, ModelSettings, Settings, key_of_model


def with_names(models: Sequence[ModelSettings], nameless: Container[str] = ()) -> list[ModelSettings]:
    """The models, each with a name: the given one, else the end of its path, as long as it must be to be unique.

    nameless: keys of models that have no path: those in memory, and merges without a name. They are called `model_0`,
    `model_1` and so on, by their index.
    """
    paths = [
        (f"model_{i}",) if key_of_model(i) in nameless else _absolute(model.path).parts
        for i, model in enumerate(models)
    ]
    names: list[str] = []
    for index, model in enumerate(models):
        taken = set(names) | {other.name for other in models if other.name}
        if model.name:
            names.append(model.name)
            continue
        rivals = [path for other, path in enumerate(paths) if other != index and not models[other].name]
        names.append(_unique(paths[index], rivals, taken))
    return [evolve(model, name=name) for model, name in zip(models, names, strict=True)]


def base_name(settings: Settings) -> str:
    """The name of the base model: the last part of its path, made different from the models' names."""
    merge = settings.merges.get(BASE)
    has_path = BASE not in settings.live and (merge is None or merge.where.startswith(f"{MERGES}."))
    path = settings.base_model if has_path else "base"
    name = _absolute(path or "").name or "base"
    return name if name not in {model.name for model in settings.models} else f"{name} (base)"


def references(settings: Settings) -> list[ModelReference]:
    """References to the models of a config in order, then to the base model if there is one."""
    found = [(key_of_model(i), model.path, model.name) for i, model in enumerate(settings.models)]
    if settings.base_model is not None:
        found.append((BASE, settings.base_model, base_name(settings)))
    return [ModelReference(path, name, key, settings.live.get(key)) for key, path, name in found]


def _absolute(path: str) -> PurePath:
    return PurePath(os.path.abspath(user_path(path)))


def _unique(path: Sequence[str], rivals: Sequence[Sequence[str]], taken: set[str]) -> str:
    for length in range(1, len(path) + 1):
        name = "/".join(path[-length:])
        if name not in taken and all(rival[-length:] != path[-length:] for rival in rivals):
            return name
    name = path[-1]
    number = 2
    while name in taken:
        name = f"{path[-1]}#{number}"
        number += 1
    return name
