"""Is an output still what was published? Every file is digested again; a flipped bit is named by its tensor."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from modelmerger.inputs.regular_files import open_regular
from modelmerger.output.digests import differing_at_once
from modelmerger.output.manifest import FILE, pieces_of, read_manifest, unfinished
from modelmerger.values.errors import InputError, Problem
from modelmerger.values.text import amount, shown, size

_DIFFERS = "differs from what was published. Merge again, or restore the file from a copy."


@frozen
class Verified:
    """What was found sound."""

    directory: str
    """Where it is."""
    files: int
    """How many were compared with their digests."""
    bytes: int
    """How many they have together."""

    def __str__(self) -> str:
        return f"{shown(self.directory)}: {amount(self.files, 'file')}, {size(self.bytes)}: as published"


def verify(directory: str | Path) -> Verified:
    """Compares a directory with its manifest. Raises `InputError` that names every file and tensor that differs."""
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(Problem("is not a directory. Give the directory of a merged model.", str(directory)))
    if not os.path.lexists(directory / FILE):
        raise InputError(Problem(f"has no {FILE}, so no merge wrote it. Give a merged model.", str(directory)))
    manifest = read_manifest(directory)
    files: Mapping[str, Any] = manifest["files"]
    problems: list[Problem] = []
    for name, expected in files.items():
        problems += _differences(directory, name, expected)
    problems += _strange(directory, manifest)
    if problems:
        raise InputError(*problems)
    return Verified(str(directory), len(files), sum(file["size"] for file in files.values()))


def _strange(directory: Path, manifest: Mapping[str, Any]) -> Iterator[Problem]:
    """One problem for each file and link that the manifest does not know."""
    companions = manifest["companions"]
    known = {*manifest["files"], *companions, FILE, *map(unfinished, [*companions, FILE])}
    extra = frozenset(manifest.get("extra", []))
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        kept = any(place.as_posix() in extra for place in (relative, *relative.parents))
        if not kept and relative.as_posix() not in known and (path.is_symlink() or not path.is_dir()):
            yield Problem("is not part of the merge. Remove it if you did not put it there.", str(path))


def _differences(directory: Path, name: str, expected: Mapping[str, Any]) -> list[Problem]:
    path = directory / name
    if any(
        os.path.islink(parent) for parent in path.parents if parent.is_relative_to(directory) and parent != directory
    ):
        return [Problem("is behind a symbolic link, which no merge makes. It was not opened.", str(path))]
    try:
        descriptor = open_regular(path)
    except InputError as error:
        return list(error.problems)
    try:
        found = os.fstat(descriptor).st_size
        if found != expected["size"]:
            return [Problem(f"is {found:,} bytes long and was {expected['size']:,} when it was published.", str(path))]
        pieces = pieces_of(expected)
        bad = dict.fromkeys(piece.tensor for piece in differing_at_once(descriptor, pieces))
        what = "its header " if any(piece.tensor for piece in pieces) else ""
        return [Problem(_DIFFERS if tensor else what + _DIFFERS, str(path), tensor) for tensor in bad]
    except OSError as error:
        return [Problem(f"cannot be read: {error.strerror}.", str(path))]
    finally:
        os.close(descriptor)
