"""The licence files of every source, under `licenses/NAME/`."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from modelmerger import Checkpoint, Problem, check_beside, hookimpl, list_directory, models_behind, read_beside

LICENCE = re.compile(r"(LICEN[CS]E|NOTICE|USE_POLICY|COPYING)([._-].{0,80})?", re.IGNORECASE | re.DOTALL)
LIMIT = 16 << 20
LONGEST_PART = 60
"""Characters; at four bytes each, still short enough for every file system."""


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint]) -> Iterable[Problem]:
    """An error for each licence file that cannot be copied, because a merged model must not go without it."""
    for checkpoint in models_behind(checkpoints):
        if (directory := checkpoint.donor.directory) is not None:
            yield from check_beside(directory, _licences(directory), LIMIT)


@hookimpl
def write_sidecars(checkpoints: Sequence[Checkpoint]) -> Mapping[str, bytes]:
    """LICENSE, NOTICE, USE_POLICY and COPYING files, each source's in a folder of its own."""
    files: dict[str, bytes] = {}
    folders: set[str] = set()
    copied: set[Path] = set()
    for checkpoint in sorted(models_behind(checkpoints), key=lambda found: found not in checkpoints):
        directory = checkpoint.donor.directory
        if directory is None or (directory in copied and checkpoint not in checkpoints):
            continue  # of a merge within this one, a model that was had before
        copied.add(directory)
        folder = _unused(_plain(checkpoint.name), folders)
        names: set[str] = set()
        for name in _licences(directory):
            content = read_beside(directory, name, LIMIT)
            if content is not None:
                files[f"licenses/{folder}/{_unused(_plain(name), names)}"] = content
    return files


def _licences(directory: Path) -> list[str]:
    return [
        name
        for name in list_directory(directory)
        if LICENCE.fullmatch(name) and not name.lower().endswith(".py") and not os.path.isdir(directory / name)
    ]


def _plain(name: str) -> str:
    """The name as a part of a path: letters, digits, `_`, `-`, and dots, but not at the beginning."""
    return re.sub(r"[^\w.-]+|^\.+", "_", name)[:LONGEST_PART]


def _unused(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if it is taken already. Adds it to `taken`."""
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free
