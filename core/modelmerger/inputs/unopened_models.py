"""What is said of a model that no plugin opens: where its path leads nowhere, with a path that is near."""

import os
from collections.abc import Iterable

from modelmerger.values.errors import Problem
from modelmerger.values.model_reference import ModelReference
from modelmerger.values.settings import Settings
from modelmerger.values.text import suggestion


def unopened(reference: ModelReference, settings: Settings | None, names: Iterable[str]) -> Problem:
    """The problem of a model that no plugin opens.

    settings: of the merge that it belongs to; None where no merge is going on. names: those of the merges that paths
    can name.
    """
    given = reference.given or reference.path
    inner = settings.where if settings is not None and reference.given else ""
    key = f" ({inner}.{reference.where})" if inner else ""
    return Problem(_sentence(given, os.path.exists(reference.path), names, key), given)


def _sentence(path: str, exists: bool, names: Iterable[str], key: str) -> str:
    if exists:
        kinds = "neither a directory with safetensors weights nor a .safetensors file"
        return f"is not a model{key}: {kinds}. Check the path."
    if near := suggestion(path, names):
        return f"does not exist{key}" + near.replace("mean", "mean the merge", 1)
    if near := _beside(path):
        return f"does not exist{key}{near}"
    if "/" in path or os.path.splitext(path)[1]:
        return f"does not exist{key}. Check the path."
    return f"does not exist{key}. Check the path; a model on the Hub is given as org/name."


def _beside(path: str) -> str:
    """A near miss among what lies where the path should lead, as a suggestion; empty where there is none.

    Names that end otherwise are of other things.
    """
    folder, name = os.path.split(path.rstrip("/"))
    stem, ending = os.path.splitext(name)
    try:
        there = map(os.path.splitext, os.listdir(os.path.expanduser(folder) or "."))
    except (OSError, ValueError):
        return ""
    near = suggestion(stem, (other for other, end in there if end == ending))
    return near.replace("mean '", f"mean '{os.path.join(folder, '')}", 1).replace("'?", f"{ending}'?")
