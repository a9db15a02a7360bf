"""Is an output directory still what was published? Every file is digested again; a flipped bit is named by its tensor."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from modelmerger.digests import block_count, block_digest
from modelmerger.errors import InputError, Problem
from modelmerger.files import open_regular
from modelmerger.layout import BLOCK
from modelmerger.manifest import FILE, read_manifest
from modelmerger.safetensors_header import HeaderError, read_header
from modelmerger.text import amount, size


@frozen
class Verified:
    """What was found sound: how many files and bytes."""

    directory: str
    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.directory}: {amount(self.files, 'file')}, {size(self.bytes)}: as published"


def verify(directory: str | Path) -> Verified:
    """Compares a directory with its manifest. Raises `InputError` that names every file, and the tensors, that differ."""
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(Problem("is not a directory. Give the directory of a merged model.", str(directory)))
    manifest = read_manifest(directory)
    files: Mapping[str, Any] = manifest["files"]
    problems: list[Problem] = []
    for name, expected in files.items():
        problems += _differences(directory / name, expected)
    known = {*files, *manifest["companions"], FILE}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if name not in known and (path.is_symlink() or not path.is_dir()):
            problems.append(Problem("is not part of the merge. Remove it if you did not put it there.", str(path)))
    if problems:
        raise InputError(*problems)
    return Verified(str(directory), len(files), sum(file["size"] for file in files.values()))


def _differences(path: Path, expected: Mapping[str, Any]) -> list[Problem]:
    try:
        descriptor = open_regular(path)
    except InputError as error:
        return list(error.problems)
    try:
        found = os.fstat(descriptor).st_size
        if found != expected["size"]:
            return [Problem(f"is {found:,} bytes long and was {expected['size']:,} when it was published.", str(path))]
        bad = [
            block
            for block in range(block_count(found))
            if block >= len(expected["blocks"]) or block_digest(descriptor, block) != expected["blocks"][block]
        ]
        return _named(path, descriptor, found, bad) if bad else []
    finally:
        os.close(descriptor)


def _named(path: Path, descriptor: int, length: int, bad: list[int]) -> list[Problem]:
    """One problem for each tensor with bytes in a bad block; for the file alone where it has no tensors, or no sound header."""
    message = "differs from what was published. Merge again, or restore the file from a copy."
    if path.suffix != ".safetensors":
        return [Problem(message, str(path))]
    try:
        header = read_header(descriptor, length)
    except HeaderError as error:
        return [Problem(f"its header differs from what was published: {error.reason}", str(path))]
    blocks = {block: [e.name for e in header.entries.values() if _overlaps(e.begin, e.end, block)] for block in bad}
    problems = []
    for block, names in blocks.items():
        near = "" if len(names) == 1 else f" (or one of the {len(names) - 1} tensors in the same 16 MiB)"
        problems.append(Problem(f"block {block}{near} {message}", str(path), names[0] if names else ""))
    return problems


def _overlaps(begin: int, end: int, block: int) -> bool:
    return begin < (block + 1) * BLOCK and end > block * BLOCK
