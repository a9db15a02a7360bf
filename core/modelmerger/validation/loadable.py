"""Directories that transformers can load without running foreign code: full models, or what is made into one.

Transformers and tokenizers open whatever they find, so our own readers look at it first, with their limits.
"""

import contextlib
import os
import sys
from pathlib import Path

from modelmerger.hooks.assembly import Hooks
from modelmerger.inputs.executable import kernels
from modelmerger.inputs.file_names import TEMPLATES_FOLDER
from modelmerger.inputs.files import InputFiles
from modelmerger.inputs.loading import LoadContext, check_beside, list_directory, read_beside
from modelmerger.inputs.strict_json import read_json
from modelmerger.values.errors import InputError, Problem, UnmeasurableError
from modelmerger.values.model_reference import ModelReference
from modelmerger.values.settings import Settings

_READ_WHOLE = (".json", ".txt", ".model", ".jinja")
_MOST_BYTES = 256 << 20


def loadable(directory: Path, hooks: Hooks, settings: Settings | None, target: Path, *, merged: bool) -> Path:
    """Where transformers can load a model from: its directory, or `target`, where a plugin made it into a full model.

    `merged`: whether it is the merged model. `settings`: of the merge, if there is one. Raises `UnmeasurableError` for
    what transformers cannot load, and `MergeError` for what cannot be made into a full model, or what a merge refuses.
    """
    found = hooks.validation.materialise_model(directory, target, settings, merged=merged) or directory
    _check(found, hooks)
    return found


def check_loadable(directory: Path, hooks: Hooks, settings: Settings | None, *, merged: bool) -> None:
    """Raises what `loadable` would raise, as far as headers and configs say it, and writes nothing."""
    if hooks.validation.materialise_model(directory, None, settings, merged=merged) is None:
        _check(directory, hooks)


def _check(directory: Path, hooks: Hooks) -> None:
    if reason := _unloadable(directory):
        raise UnmeasurableError(Problem(reason, str(directory)))
    with contextlib.closing(InputFiles()) as files:
        hooks.models.load_model(ModelReference(str(directory), directory.name, "MODEL"), LoadContext(files))
    problems = []
    for folder in (directory, directory / TEMPLATES_FOLDER):
        names = [name for name in _listed(folder) if not os.path.isdir(folder / name)]
        read_whole = [name for name in names if name.endswith(_READ_WHOLE)]
        problems += check_beside(folder, read_whole, _MOST_BYTES)
        problems += check_beside(folder, [name for name in names if name not in read_whole], sys.maxsize)
    if problems:
        raise InputError(*problems)


def _listed(folder: Path) -> list[str]:
    return list_directory(folder) if os.path.isdir(folder) else []


def _unloadable(directory: Path) -> str:
    if not directory.is_dir():
        return "is not a directory, and transformers loads models from directories alone."
    config = read_beside(directory, "config.json")
    if config is None:
        return "has no config.json, so transformers cannot load it."
    if not any(directory.glob("*.safetensors")):
        return "has no safetensors weights, and no others are loaded."
    try:
        found = kernels(read_json(config, "config.json"))
    except InputError as error:
        return f"has a config.json that {error.problems[0].message}"
    return f"wants code from a repository ({', '.join(found)}), and none is run." if found else ""
