"""Directories that transformers can load without running foreign code: full models in safetensors, or what is made into one."""

import json
from collections.abc import Callable
from pathlib import Path

from modelmerger.inputs.loading import read_beside
from modelmerger.values.errors import Problem, UnmeasurableError
from modelmerger.values.executable import kernels
from modelmerger.values.settings import Settings

Materialise = Callable[[Path, bool, Settings | None, Path | None], Path | None]
"""`materialise(directory, merged, settings, target)`: see `modelmerger.validation.adapters`."""


def loadable(directory: Path, merged: bool, settings: Settings | None, target: Path, materialise: Materialise) -> Path:
    """Where transformers can load a model from: its directory, or `target`, where it was made into a full model.

    merged: whether it is the merged model. settings: of the merge, if there is one. Raises `UnmeasurableError` for what
    transformers cannot load, and `MergeError` for what cannot be made into a full model.
    """
    place = materialise(directory, merged, settings, target) or directory
    _check(place)
    return place


def full_model(_: str, directory: Path, __: Path) -> Path:
    """The directory itself. Raises `UnmeasurableError` where transformers cannot load it."""
    _check(directory)
    return directory


def check_loadable(directory: Path, merged: bool, settings: Settings | None, materialise: Materialise) -> None:
    """Raises what `loadable` would raise, as far as headers and configs say it, and writes nothing."""
    if materialise(directory, merged, settings, None) is None:
        _check(directory)


def _check(directory: Path) -> None:
    if reason := _unloadable(directory):
        raise UnmeasurableError(Problem(reason, str(directory)))


def _unloadable(directory: Path) -> str:
    if not directory.is_dir():
        return "is no directory, and transformers loads models from directories alone."
    config = read_beside(directory, "config.json")
    if config is None:
        return "has no config.json, so transformers cannot load it."
    if not any(directory.glob("*.safetensors")):
        return "has no safetensors weights, and no others are loaded."
    try:
        foreign = kernels(json.loads(config))
    except (ValueError, RecursionError):
        return "has a config.json that is no JSON."
    return f"wants code from a repository ({', '.join(foreign)}), and none is run." if foreign else ""
