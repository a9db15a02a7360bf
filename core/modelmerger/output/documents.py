"""Whole files of the output, each on the disk when it is written."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from modelmerger.output.entries import create_file, open_directory, sync_directory, write_all
from modelmerger.output.steps import Step
from modelmerger.output.system_errors import output_errors


def write_document(tree: int, root: Path, name: str, content: Iterable[bytes], step: Step) -> None:
    """Writes a file into the open directory `tree`, which lies at `root`; into sub-folders, made if need be, if its
    name says so.

    content: piece by piece. Raises `OutputError`, also where something has that name.
    """
    with output_errors(root / name), made_folder(tree, root, name, step) as (directory, last):
        step("create", root / name)
        descriptor = create_file(last, directory)
        try:
            step("write", root / name)
            for piece in content:
                write_all(descriptor, piece)
            step("fsync", root / name)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if "/" in name:
            step("fsync", (root / name).parent)
            sync_directory(directory)


@contextlib.contextmanager
def made_folder(tree: int, root: Path, name: str, step: Step) -> Iterator[tuple[int, str]]:
    """The folder of the open directory `tree` that a name leads to, made if need be, and the name there.

    Open while the context lasts. Raises `OSError`.
    """
    *folders, last = name.split("/")
    path = root
    directory = os.dup(tree)
    try:
        for folder in folders:
            path /= folder
            directory = _entered(directory, folder, path, step)
        yield directory, last
    finally:
        os.close(directory)


def _entered(parent: int, folder: str, path: Path, step: Step) -> int:
    """A descriptor of a sub-folder, made if need be and then on the disk, in place of its parent's."""
    with contextlib.suppress(FileExistsError):
        step("create", path)
        os.mkdir(folder, dir_fd=parent)
        step("fsync", path.parent)
        sync_directory(parent)
    inner = open_directory(folder, parent)
    os.close(parent)
    return inner
