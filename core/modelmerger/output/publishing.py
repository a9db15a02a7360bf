"""The output is absent, old or whole: what may be written is checked first, and appears by one rename at the end."""

import contextlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from modelmerger.output.earlier.apart import Inputs, check_apart, check_in_no_output
from modelmerger.output.entries import sync_file
from modelmerger.output.manifest import read_manifest, read_manifest_of_weights
from modelmerger.output.parent_folder import check_parent, standing_folder
from modelmerger.output.scratch import Scratch
from modelmerger.output.shared.locking import NotThereError
from modelmerger.output.shared.part_files import PartJournals
from modelmerger.output.staging import Staging
from modelmerger.output.staging_directory import StagingDirectory, check_staging, is_empty, is_published
from modelmerger.output.steps import Step
from modelmerger.output.system import ExchangeUnsupportedError, can_exchange, exchange, free_bytes, rename_new
from modelmerger.output.system_errors import output_errors
from modelmerger.values.errors import InputError, OutputError, Problem
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.text import size
from modelmerger.values.work.block_record import BlockRecord

_OURS = "Give another output path, or set overwrite: true for a directory that an earlier merge wrote"
_UNEXCHANGED = "cannot be overwritten in one step on this file system. Give another output path, then rename by hand."


def check_output(target: Path, options: CoreOptions, inputs: Inputs) -> None:
    """Raises `OutputError` for a target that exists, whose folder cannot be made, that touches an input, or
    that lies in another output.

    With `overwrite`, one that exists must be an earlier output, as it was published; with `keep_extra`, others may
    have put something there.
    """
    if "\0" in str(target):
        raise OutputError(Problem("has a NUL character in it. Give another output path.", str(target)))
    with output_errors(target):
        check_parent(target)
        _check_kind(target)
        check_in_no_output(target)
        check_apart(target, inputs)
        _check_free(target, options)
        check_staging(target)


def _check_kind(target: Path) -> None:
    try:
        found = target.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a file"
        raise OutputError(Problem(f"exists and is {kind}, not a directory. Give another output path.", str(target)))


def _check_free(target: Path, options: CoreOptions) -> None:
    if not os.path.lexists(target):
        return
    if not options.overwrite:
        raise OutputError(Problem(f"exists already. {_OURS}.", str(target)))
    try:
        manifest = read_manifest_of_weights(target)
    except InputError:
        message = "exists and no merge wrote it (it has no sound modelmerger.json), so it is not overwritten."
        raise OutputError(Problem(f"{message} Give another path.", str(target))) from None
    from modelmerger.output.earlier.foreign import check_all_ours

    check_all_ours(target, manifest, keep_extra=options.keep_extra)
    if target.is_mount():
        message = "is where a disk is mounted, so no other directory can get its name. Give a path inside it."
        raise OutputError(Problem(message, str(target)))
    with Scratch(str(target.parent)) as scratch:
        if not can_exchange(scratch.path):
            raise OutputError(Problem(_UNEXCHANGED, str(target)))


def extra_entries(target: Path, options: CoreOptions) -> list[str]:
    """What no merge wrote of the output that is overwritten, and is to be in the new one too."""
    if not (options.overwrite and options.keep_extra):
        return []
    from modelmerger.output.earlier.foreign import unlisted

    with output_errors(target), contextlib.suppress(InputError):  # there is no output, or none of ours
        return list(unlisted(target, read_manifest(target)))
    return []


def check_room(target: Path, needed: int) -> None:
    """Raises `OutputError` when the disk of the output says that less than `needed` bytes are free."""
    folder = standing_folder(target)
    with output_errors(folder):
        free = free_bytes(folder)
    if free is not None and free < needed:
        raise OutputError(
            Problem(
                f"{size(needed)} are needed and {size(free)} are free on the disk. "
                "Free some space, or give another path.",
                str(target),
            )
        )


def publish(staging: Staging, options: CoreOptions, step: Step) -> list[Problem]:
    """Gives the staged tree the target's name at once, then removes what is left of the staging, the old tree included.

    What is in the old tree and no merge wrote must be in the new one too, and its manifest must say so.

    Returns what is to be said of that removal: once the name is given, the merge is done, whatever happens.
    """
    staging.mark()
    with output_errors(staging.target):
        give_name(staging, options.overwrite, step)
    return _cleared_up(staging.directory)


@frozen(eq=False, repr=False)
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
    directory = StagingDirectory(target, step, make=False)
    published = None if os.path.islink(target) or not os.path.isdir(directory.root) else _plan_of(target)
    if published is None or published != plan():
        return None
    with contextlib.suppress(NotThereError), directory, output_errors(target):
        journal = directory.journal()
        if journal is None or (overwrite if not journal.plan else journal.plan != published):
            return None
        if journal.plan and journal.tree != target.stat().st_ino:
            return None
        records = {**PartJournals.of(directory.descriptor).of_plan(published).records, **journal.records}
        step("fsync", target.parent)
        sync_file(target.parent)
        message = "was published by an earlier run, which was stopped before it had cleared up. That is done now."
        notes = [Problem(message, str(target), severity="note"), *_cleared_up(directory)]
        return Finished(notes, records)
    return None  # the other merge was not stopped: it has cleared up by now


def give_name(staging: Staging, overwrite: bool, step: Step) -> None:
    """One rename, then fsync of the parent. With `overwrite`, an old target stands under the tree's name afterwards."""
    tree, target = staging.tree, staging.target
    replaces = overwrite and target.is_dir() and not target.is_symlink()
    if replaces:
        _check_replaced(target, staging)
    staging.check_held()
    step("rename", target)
    try:
        if replaces:
            exchange(tree, target)
            try:  # what came in this instant is not ours to delete
                _check_named(staging)
                _check_replaced(tree, staging)
            except OutputError:
                exchange(target, tree)
                raise
        else:
            rename_new(tree, target)
            try:
                _check_named(staging)
            except OutputError:
                target.rename(tree)
                raise
    except FileExistsError:
        raise OutputError(Problem(f"came into being while the merge ran. {_OURS}.", str(target))) from None
    except ExchangeUnsupportedError:
        raise OutputError(Problem(_UNEXCHANGED, str(target))) from None
    try:
        step("fsync", target.parent)
        sync_file(target.parent)
    except OSError:  # the new name may not outlive a power cut, so the merge failed and the old state comes back
        if replaces:
            exchange(target, tree)
        else:
            target.rename(tree)
        raise


def _check_named(staging: Staging) -> None:
    """Raises `OutputError` where another directory than this merge's got the name."""
    if not staging.has_name(staging.target):
        raise OutputError(Problem("was replaced while the merge ran. Run it again.", str(staging.tree)))


def _check_replaced(old: Path, staging: Staging) -> None:
    """Raises `OutputError` unless a directory is an output of ours, and holds nothing else but what is kept."""
    from modelmerger.output.earlier.foreign import unlisted

    try:
        strange = [name for name in unlisted(old, read_manifest_of_weights(old)) if name not in staging.extra]
    except InputError:
        message = f"was replaced by what no merge wrote, while the merge ran. {_OURS}."
        raise OutputError(Problem(message, str(staging.target))) from None
    if strange:
        message = "came into the output while the merge ran. Move it away, then run the same again."
        raise OutputError(Problem(message, str(staging.target / strange[0])))


def _plan_of(target: Path) -> str | None:
    """The digest of the plan that a directory was made by; None where no merge made it."""
    try:
        return str(read_manifest(target)["plan"])
    except InputError:
        return None


def may_be_done(target: Path, options: CoreOptions) -> bool:
    """Whether `finish_earlier` may find a merge to this target done: by what is on the disk, whatever the plan."""
    if is_published(target):
        return True
    return not options.overwrite and is_empty(target) and not target.is_symlink() and _plan_of(target) is not None


def clear_published(target: Path, step: Step) -> list[Problem]:
    """Removes what a run that published to this target left beside it when it was killed. Raises `OutputError`."""
    if not (is_published(target) or is_empty(target)):
        return []
    with (
        contextlib.suppress(NotThereError),
        StagingDirectory(target, step, make=False) as directory,
        output_errors(directory.root),
    ):
        return directory.remove()
    return []


def _cleared_up(directory: StagingDirectory) -> list[Problem]:
    try:
        return directory.remove()
    except OSError as error:
        message = (
            f"is of no use any more and could not be removed: {error.strerror or type(error).__name__}. Remove it."
        )
        return [Problem(message, str(directory.root), severity="warning")]
