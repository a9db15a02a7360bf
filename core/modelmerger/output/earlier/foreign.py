"""What stands in an earlier output that no merge wrote: what somebody put there, and files that somebody changed."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from modelmerger.inputs.regular_files import open_regular
from modelmerger.output.digests import differing
from modelmerger.output.manifest import FILE, has_tensors, pieces_of, unfinished
from modelmerger.values.errors import InputError, OutputError, Problem

_CHANGED = "was changed since the merge wrote it{}, so nothing is overwritten. Move it away, then run the same again."
_UNLISTED = (
    "was put there by no merge{}, so nothing is overwritten. Move it away, or give keep_extra: true (--keep-extra): "
    "then it is in the new output too."
)


def unlisted(directory: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Names of what is in a directory and not in its manifest, in order. A folder stands for all that is in it.

    What has a listed name and is no file, a link or a folder, is none of ours either.
    """
    known = {*manifest["files"], *manifest["companions"], FILE}
    known |= set(map(unfinished, [*manifest["companions"], FILE]))
    folders = {str(folder) for name in known for folder in PurePosixPath(name).parents}
    yield from _unlisted(directory, "", known, folders)


def _unlisted(directory: Path, prefix: str, known: set[str], folders: set[str]) -> Iterator[str]:
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if name in folders and entry.is_dir(follow_symlinks=False):
            yield from _unlisted(directory / entry.name, f"{name}/", known, folders)
        elif name not in known or not entry.is_file(follow_symlinks=False):
            yield name


def changed(directory: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Names of the files that are no longer what the manifest says, in order.

    Of files of weights only the size is compared: one with a flipped bit is merged again, and reading takes long.
    """
    for name, entry in manifest["files"].items():
        try:
            descriptor = open_regular(directory / name)
        except InputError:  # gone, or `unlisted` names it
            continue
        try:
            pieces = [] if has_tensors(entry) else pieces_of(entry)
            if os.fstat(descriptor).st_size != entry["size"] or any(True for _ in differing(descriptor, 0, pieces)):
                yield name
        finally:
            os.close(descriptor)


def check_all_ours(directory: Path, manifest: Mapping[str, Any], *, keep_extra: bool) -> None:
    """Raises `OutputError`, which names the first of them, where files were changed, or put there and are not kept."""
    for message, names in (
        (_CHANGED, list(changed(directory, manifest))),
        (_UNLISTED, [] if keep_extra else list(unlisted(directory, manifest))),
    ):
        if names:
            raise OutputError(Problem(message.format(_others(len(names) - 1)), str(directory / names[0])))


def _others(count: int) -> str:
    return f" (and {count:,} more)" if count else ""
