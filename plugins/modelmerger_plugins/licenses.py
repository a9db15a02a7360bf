"""The licence files of every source, under `licenses/NAME/`."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from modelmerger import (
    Checkpoint,
    FileIdentity,
    InputError,
    Problem,
    hookimpl,
    identify_beside,
    list_directory,
    models_behind,
)

LICENCE = re.compile(r"(LICEN[CS]E|NOTICE|USE_POLICY|COPYING)([._-].{0,80})?", re.IGNORECASE | re.DOTALL)
CODE = (".py", ".pyc", ".js", ".sh", ".so", ".exe", ".dll", ".bat")
FOLDER = "licenses"
LIMIT, LIMIT_IN_ALL, MOST_FILES = 16 << 20, 64 << 20, 1_000
"""Bytes of a licence file, of all of a source, and how many files that may be."""
LONGEST_PART = 60
"""Characters; at four bytes each, still short enough for every file system."""


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint]) -> Iterable[Problem]:
    """An error for each licence file that cannot be copied, because a merged model must not go without it."""
    for checkpoint in models_behind(checkpoints):
        if (directory := checkpoint.donor.directory) is not None:
            yield from _problems(directory)


@hookimpl
def write_sidecars(checkpoints: Sequence[Checkpoint]) -> Mapping[str, FileIdentity]:
    """LICENSE, NOTICE, USE_POLICY and COPYING files, each source's in a folder of its own.

    Those that a source which was merged itself has of its own sources keep their folders.
    """
    files: dict[str, FileIdentity] = {}
    folders = _Names()
    copied: set[Path] = set()
    for checkpoint in sorted(models_behind(checkpoints), key=lambda found: found not in checkpoints):
        directory = checkpoint.donor.directory
        if directory is None or (directory in copied and checkpoint not in checkpoints):
            continue  # of a merge within this one, a model that was had before
        copied.add(directory)
        own = folders.unused(_plain(checkpoint.name))
        for inner, names in _licences(directory).items():
            folder = folders.unused(_plain(inner)) if inner else own
            taken = _Names()
            for name in names:
                path = f"{FOLDER}/{inner}/{name}" if inner else name
                files[f"{FOLDER}/{folder}/{taken.unused(_plain(name))}"] = identify_beside(directory, path, LIMIT)
    return files


def _problems(directory: Path) -> Iterable[Problem]:
    found = _licences(directory)
    paths = [f"{FOLDER}/{inner}/{name}" if inner else name for inner, names in found.items() for name in names]
    total = 0
    for path in paths[:MOST_FILES]:
        try:
            total += identify_beside(directory, path, LIMIT).size
        except InputError as error:
            yield from error.problems
    if len(paths) > MOST_FILES or total > LIMIT_IN_ALL:
        message = (
            f"has {len(paths):,} licence files, {total:,} bytes together; at most {MOST_FILES:,} and "
            f"{LIMIT_IN_ALL:,} are copied. Remove what is not the model's."
        )
        yield Problem(message, str(directory))


def _licences(directory: Path) -> dict[str, list[str]]:
    """Folder in `licenses/` → the licence files in it; those of the model itself under the empty name."""
    found = {"": _in_folder(directory)}
    inner = directory / FOLDER
    if os.path.isdir(inner) and not os.path.islink(inner):
        for name in list_directory(inner):
            if os.path.isdir(inner / name) and not os.path.islink(inner / name):
                found[name] = _in_folder(inner / name)
    return {folder: names for folder, names in found.items() if names}


def _in_folder(directory: Path) -> list[str]:
    return [
        name
        for name in list_directory(directory)
        if LICENCE.fullmatch(name) and not name.lower().endswith(CODE) and not os.path.isdir(directory / name)
    ]


def _plain(name: str) -> str:
    """The name as a part of a path: letters, digits, `_`, `-`, and dots, but not at the beginning."""
    return re.sub(r"[^\w.-]+|^\.+", "_", name)[:LONGEST_PART]


class _Names:
    """Names that are taken."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def unused(self, name: str) -> str:
        """The name, with a number behind it if it is taken already; then it is taken."""
        number, free = self._next.get(name.casefold(), 1), name
        while free.casefold() in self._next:
            number += 1
            free = f"{name}-{number}"
        self._next[name.casefold()] = number
        self._next.setdefault(free.casefold(), 1)
        return free
