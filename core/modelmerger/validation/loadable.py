"""Directories that transformers can load without running foreign code: full models, or what is made into one."""

from pathlib import Path

from modelmerger.hooks.validation import ValidationHooks
from modelmerger.inputs.executable import kernels
from modelmerger.inputs.loading import read_beside
from modelmerger.inputs.strict_json import read_json
from modelmerger.values.errors import InputError, Problem, UnmeasurableError
from modelmerger.values.settings import Settings


def loadable(directory: Path, hooks: ValidationHooks, settings: Settings | None, target: Path, *, merged: bool) -> Path:
    """Where transformers can load a model from: its directory, or `target`, where a plugin made it into a full model.

    `merged`: whether it is the merged model. `settings`: of the merge, if there is one. Raises `UnmeasurableError` for
    what transformers cannot load, and `MergeError` for what cannot be made into a full model.
    """
    found = hooks.materialise_model(directory, target, settings, merged=merged) or directory
    _check(found)
    return found


def check_loadable(directory: Path, hooks: ValidationHooks, settings: Settings | None, *, merged: bool) -> None:
    """Raises what `loadable` would raise, as far as headers and configs say it, and writes nothing."""
    if hooks.materialise_model(directory, None, settings, merged=merged) is None:
        _check(directory)


def _check(directory: Path) -> None:
    if reason := _unloadable(directory):
        raise UnmeasurableError(Problem(reason, str(directory)))


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
