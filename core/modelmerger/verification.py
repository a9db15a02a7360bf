"""Is an output directory still what was published? Every file is digested again; a flipped bit is named by its tensor."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from modelmerger.digests import block_count, block_digest, range_digest
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
    if not os.path.lexists(directory / FILE):
        raise InputError(Problem(f"has no {FILE}, so no merge wrote it. Give a merged model.", str(directory)))
    manifest = read_manifest(directory)
    files: Mapping[str, Any] = manifest["files"]
    problems: list[Problem] = []
    for name, expected in files.items():
        problems += _differences(directory, name, expected)
    known = {*files, *manifest["companions"], FILE}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if name not in known and (path.is_symlink() or not path.is_dir()):
            problems.append(Problem("is not part of the merge. Remove it if you did not put it there.", str(path)))
    if problems:
        raise InputError(*problems)
    return Verified(str(directory), len(files), sum(file["size"] for file in files.values()))


def _differences(directory: Path, name: str, expected: Mapping[str, Any]) -> list[Problem]:
    path = directory / name
    if any(
        os.path.islink(parent) for parent in path.parents if parent.is_relative_to(directory) and parent != directory
    ):
        return [Problem("lies behind a symbolic link, which no merge makes. It was not opened.", str(path))]
    try:
        descriptor = open_regular(path)
    except InputError as error:
        return list(error.problems)
    try:
        found = os.fstat(descriptor).st_size
        if found != expected["size"]:
            return [Problem(f"is {found:,} bytes long and was {expected['size']:,} when it was published.", str(path))]
        blocks = expected["blocks"]
        bad = [b for b in range(block_count(found)) if blocks[b : b + 1] != [block_digest(descriptor, b)]]
        return _named(path, descriptor, expected, bad) if bad else []
    except OSError as error:
        return [Problem(f"cannot be read: {error.strerror}.", str(path))]
    finally:
        os.close(descriptor)


def _named(path: Path, descriptor: int, expected: Mapping[str, Any], bad: list[int]) -> list[Problem]:
    """One problem for each tensor that differs; for the file alone where it has no tensors, or where its header differs."""
    message = "differs from what was published. Merge again, or restore the file from a copy."
    if path.suffix != ".safetensors":
        return [Problem(message, str(path))]
    try:
        header = read_header(descriptor, expected["size"])
    except HeaderError as error:
        return [Problem(f"its header differs from what was published: {error.reason}", str(path))]
    spans = [("", 0, header.data_start), *((e.name, e.begin, e.end) for e in header.entries.values())]
    problems: dict[str, Problem] = {}
    for block in bad:
        first, last = block * BLOCK, (block + 1) * BLOCK
        inside = [
            (name, max(begin, first), min(end, last)) for name, begin, end in spans if begin < last and end > first
        ]
        parts, others = expected.get("parts", {}).get(str(block)), ""
        if parts is not None:
            inside = [span for span in inside if parts.get(span[0]) != range_digest(descriptor, *span[1:])]
        elif len(inside) > 1:
            others = f" or one of the {len(inside) - 1} others in the same 16 MiB"
            inside = inside[-1:]
        for name, _, _ in inside:
            if name == "":
                return [Problem(f"its header {message}", str(path))]
            problems.setdefault(name, Problem(f"{others} {message}".strip(), str(path), name))
    return list(problems.values()) or [Problem(message, str(path))]
