"""The output directory is absent, old, or whole: what may be written is checked first, and appears by one rename at the end."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from modelmerger.checkpoint import Checkpoint
from modelmerger.errors import OutputError, Problem
from modelmerger.manifest import is_ours
from modelmerger.staging import Staging, Step, output_errors
from modelmerger.system import ExchangeUnsupportedError, exchange, rename_new
from modelmerger.text import size

OURS = "Give another output path, or set overwrite: true for a directory that an earlier merge wrote"


def check_output(target: Path, overwrite: bool, checkpoints: Sequence[Checkpoint]) -> None:
    """Raises `OutputError` for a target that must not be written: it exists, its parent does not, or it touches an input."""
    parent = target.parent
    if not parent.is_dir():
        raise OutputError(Problem(f"the folder {parent} does not exist. Make it first.", str(target)))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(Problem(f"the folder {parent} cannot be written to. Change its permissions.", str(target)))
    _check_apart(target, checkpoints)
    try:
        found = target.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a file"
        raise OutputError(Problem(f"exists and is {kind}, not a directory. Give another output path.", str(target)))
    if not overwrite:
        raise OutputError(Problem(f"exists already. {OURS}.", str(target)))
    if not is_ours(target):
        raise OutputError(
            Problem(
                "exists and no merge wrote it (it has no sound modelmerger.json), so it is not overwritten. Give another path.",
                str(target),
            )
        )


def check_room(target: Path, needed: int) -> None:
    """Raises `OutputError` when the disk of the output has less than `needed` bytes free."""
    with output_errors(target.parent):
        disk = os.statvfs(target.parent)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise OutputError(
            Problem(
                f"{size(needed)} are needed and {size(free)} are free on the disk. Free some space, or give another path.",
                str(target),
            )
        )


def publish(staging: Staging, overwrite: bool, step: Step) -> None:
    """Gives the staged tree the target's name in one step, then removes what is left of the staging, the old tree included."""
    with output_errors(staging.target):
        give_name(staging.tree, staging.target, overwrite, step)
        staging.remove()


def give_name(tree: Path, target: Path, overwrite: bool, step: Step) -> None:
    """One rename, then fsync of the parent. With `overwrite`, an old target stands under the tree's name afterwards."""
    step("rename", target)
    try:
        if overwrite and target.is_dir() and not target.is_symlink():
            exchange(tree, target)
        else:
            rename_new(tree, target)
    except FileExistsError:
        raise OutputError(Problem(f"came into being while the merge ran. {OURS}.", str(target))) from None
    except ExchangeUnsupportedError:
        message = (
            "cannot be overwritten in one step on this file system. Give another output path, then rename by hand."
        )
        raise OutputError(Problem(message, str(target))) from None
    step("fsync", target.parent)
    sync_file(target.parent)


def sync_file(path: Path) -> None:
    """Fsync of a file or directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_apart(target: Path, checkpoints: Sequence[Checkpoint]) -> None:
    """No output equals, contains or lies in an input, whatever links and `..` are on the way."""
    real = Path(os.path.realpath(target))
    for checkpoint in checkpoints:
        places = {Path(file.path) for file in checkpoint.files}
        if checkpoint.donor.directory is not None:
            places.add(checkpoint.donor.directory)
        for place in {Path(os.path.realpath(place)) for place in places}:
            if real == place or place in real.parents or real in place.parents:
                raise OutputError(
                    Problem(
                        f"is, contains or lies in the input '{checkpoint.name}' ({place}). Give another output path.",
                        str(target),
                    )
                )
