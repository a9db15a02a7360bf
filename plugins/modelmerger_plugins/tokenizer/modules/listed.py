"""The modules that an embedding model lists, and those of them that have weights in folders of their own."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmerger import PICKLED_SUFFIXES, Checkpoint, InputError, is_plain_path, list_directory, read_beside, read_json

MODULES, MODULES_LIMIT = "modules.json", 1 << 20
MOST_MODULES = 64
WEIGHTS = ".safetensors"
DENSE = ".Dense"
"""How the type of a module ends that always has weights."""


def home(checkpoint: Checkpoint) -> Path | None:
    """The directory that lists the modules: the model's, or that of an adapter's base where the adapter has none."""
    own = checkpoint.donor.directory
    if checkpoint.base is None or (own is not None and os.path.lexists(own / MODULES)):
        return own
    return checkpoint.base.checkpoint.donor.directory


def module_folders(directory: Path | None) -> dict[str, str]:
    """The names of the modules → their folders, as far as these are folders of this directory.

    A module whose name is missing, or another one's too, goes by its folder. Empty where the list cannot be read: it is
    checked where it is copied.
    """
    listed = [] if directory is None else _listed(directory)
    counts = Counter(str(module.get("name")) for module in listed)
    found: dict[str, str] = {}
    for module in listed:
        name, path = module.get("name"), module.get("path")
        if directory is not None and isinstance(path, str) and is_plain_path(path) and _is_folder(directory, path):
            named = isinstance(name, str) and name and counts[name] == 1
            if path not in found.values():
                found[str(name) if named else path] = path
    return dict(list(found.items())[:MOST_MODULES])


def folders_with_weights(checkpoint: Checkpoint) -> dict[str, str]:
    """The same of those modules of a model that have weights."""
    directory = home(checkpoint)
    return {name: folder for name, folder in module_folders(directory).items() if weights_in(directory, folder)}


def weights_in(directory: Path | None, folder: str) -> list[str]:
    """The files of weights in a folder."""
    names = [] if directory is None else list_directory(directory / folder)
    return [name for name in names if name.endswith((WEIGHTS, *PICKLED_SUFFIXES))]


def without_weights(directory: Path | None) -> list[str]:
    """The folders of Dense modules that hold no weights, without which no loader takes the model."""
    listed = [] if directory is None else _listed(directory)
    dense = {module.get("path") for module in listed if str(module.get("type")).endswith(DENSE)}
    return [f for f in module_folders(directory).values() if f in dense and not weights_in(directory, f)]


def joined_folders(checkpoint: Checkpoint) -> list[str]:
    """The folders whose weights are among the tensors of a model, as it is seen."""
    folders = module_folders(home(checkpoint)).values()
    return [folder for folder in folders if any(name.startswith(f"{folder}/") for name in checkpoint.tensors)]


def _listed(directory: Path) -> list[Mapping[str, Any]]:
    try:
        listed = read_json(read_beside(directory, MODULES, MODULES_LIMIT) or b"[]", MODULES)
    except InputError:
        return []
    return [module for module in listed if isinstance(module, dict)] if isinstance(listed, list) else []


def _is_folder(directory: Path, path: str) -> bool:
    """Whether a path leads to a folder below the directory, over no link."""
    steps = [directory.joinpath(*path.split("/")[: count + 1]) for count in range(path.count("/") + 1)]
    return all(os.path.isdir(step) and not os.path.islink(step) for step in steps)
