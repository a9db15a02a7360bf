"""The output is absent, old or whole: what may be written is checked first, and appears by one rename at the end."""

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from modelmerger.output.entries import sync_file
from modelmerger.output.manifest import is_ours, read_manifest
from modelmerger.output.parent_folder import check_parent, standing_folder
from modelmerger.output.staging import Staging
from modelmerger.output.staging_directory import StagingDirectory, check_staging, staging_path
from modelmerger.output.steps import Step
from modelmerger.output.system import ExchangeUnsupportedError, exchange, rename_new
from modelmerger.output.system_errors import output_errors
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import InputError, OutputError, Problem
from modelmerger.values.text import size
from modelmerger.values.work.block_record import BlockRecord

_OURS = "Give another output path, or set overwrite: true for a directory that an earlier merge wrote"


def check_output(target: Path, overwrite: bool, checkpoints: Sequence[Checkpoint]) -> None:
    """Raises `OutputError` for a target that exists, whose folder cannot be made, or that touches an input."""
    if "\0" in str(target):
        raise OutputError(Problem("has a NUL character in it. Give another output path.", str(target)))
    with output_errors(target):
        check_parent(target)
        _check_apart(target, checkpoints)
        _check_free(target, overwrite)
        check_staging(target)


def _check_free(target: Path, overwrite: bool) -> None:
    try:
        found = target.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a file"
        raise OutputError(Problem(f"exists and is {kind}, not a directory. Give another output path.", str(target)))
    if not overwrite:
        raise OutputError(Problem(f"exists already. {_OURS}.", str(target)))
    if not is_ours(target):
        raise OutputError(
            Problem(
                "exists and no merge wrote it (it has no sound modelmerger.json), so it is not overwritten. "
                "Give another path.",
                str(target),
            )
        )


def check_room(target: Path, needed: int) -> None:
    """Raises `OutputError` when the disk of the output has less than `needed` bytes free."""
    folder = standing_folder(target)
    with output_errors(folder):
        disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise OutputError(
            Problem(
                f"{size(needed)} are needed and {size(free)} are free on the disk. "
                "Free some space, or give another path.",
                str(target),
            )
        )


def publish(staging: Staging, overwrite: bool, step: Step) -> list[Problem]:
    """Gives the staged tree the target's name at once, then removes what is left of the staging, the old tree included.

    Returns what is to be said of that removal: once the name is given, the merge is done, whatever happens.
    """
    staging.mark()
    with output_errors(staging.target):
        give_name(staging.tree, staging.target, overwrite, step)
    return _cleared_up(staging.directory)


@frozen
class Finished:
    """A merge that an earlier run published."""

    notes: Sequence[Problem]
    """What is to be said of it."""
    records: Mapping[tuple[int, int], BlockRecord]
    """What its journal says of its blocks, by file and block."""


def finish_earlier(target: Path, plan: Callable[[], str], overwrite: bool, step: Step) -> Finished | None:
    """Where a merge of this plan was published, and stopped before its staging directory was gone: removes that.

    plan: its digest, asked for where it matters. None where there is nothing of the kind. The last step of such a
    removal leaves an empty directory, as the first step of a merge does: then the merge is done again if it may be.
    """
    directory = StagingDirectory(target, step)
    published = None if os.path.islink(target) or not os.path.isdir(directory.root) else _plan_of(target)
    if published is None or published != plan():
        return None
    with directory, output_errors(target):
        journal = directory.journal()
        if journal is None or (overwrite if not journal.plan else journal.plan != published):
            return None
        if journal.plan and journal.tree != target.stat().st_ino:
            return None
        step("fsync", target.parent)
        sync_file(target.parent)
        message = "was published by an earlier run, which was stopped before it had cleared up. That is done now."
        notes = [Problem(message, str(target), severity="note"), *_cleared_up(directory)]
        return Finished(notes, journal.records)


def give_name(tree: Path, target: Path, overwrite: bool, step: Step) -> None:
    """One rename, then fsync of the parent. With `overwrite`, an old target stands under the tree's name afterwards."""
    foreign = OutputError(Problem(f"was replaced by what no merge wrote, while the merge ran. {_OURS}.", str(target)))
    replaces = overwrite and target.is_dir() and not target.is_symlink()
    if replaces and not is_ours(target):
        raise foreign
    step("rename", target)
    try:
        if replaces:
            exchange(tree, target)
            if not is_ours(tree):  # what came in this instant is not ours to delete
                exchange(target, tree)
                raise foreign
        else:
            rename_new(tree, target)
    except FileExistsError:
        raise OutputError(Problem(f"came into being while the merge ran. {_OURS}.", str(target))) from None
    except ExchangeUnsupportedError:
        message = (
            "cannot be overwritten in one step on this file system. Give another output path, then rename by hand."
        )
        raise OutputError(Problem(message, str(target))) from None
    try:
        step("fsync", target.parent)
        sync_file(target.parent)
    except OSError:  # the new name may not outlive a power cut, so the merge failed and the old state comes back
        if replaces:
            exchange(target, tree)
        else:
            target.rename(tree)
        raise


def _plan_of(target: Path) -> str | None:
    """The digest of the plan that a directory was made by; None where no merge made it."""
    try:
        return str(read_manifest(target)["plan"])
    except InputError:
        return None


def _cleared_up(directory: StagingDirectory) -> list[Problem]:
    try:
        directory.remove()
    except OSError as error:
        message = (
            f"is of no use any more and could not be removed: {error.strerror or type(error).__name__}. Remove it."
        )
        return [Problem(message, str(directory.root), severity="warning")]
    return []


def _check_apart(target: Path, checkpoints: Sequence[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        paths = [file.path for file in checkpoint.files]
        if checkpoint.donor.directory is not None:
            paths.append(str(checkpoint.donor.directory))
        check_apart(target, checkpoint.name, paths)


def check_apart(target: Path, name: str, paths: Iterable[str]) -> None:
    """Raises `OutputError` where the output equals, contains or lies in an input, whatever links are on the way.

    name: of the input, for the message. paths: all that it consists of.
    """
    outputs = [Path(os.path.realpath(path)) for path in (target, staging_path(target))]
    for path in sorted({Path(os.path.realpath(path)) for path in paths}):
        if any(output == path or path in output.parents or output in path.parents for output in outputs):
            raise OutputError(
                Problem(f"is, contains or lies in the input '{name}' ({path}). Give another output path.", str(target))
            )
