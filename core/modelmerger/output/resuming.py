"""A staging directory is made ready: begun anew, or with what an earlier run of the same plan has left in it."""

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import frozen

from modelmerger.output import journal
from modelmerger.output.digests import block_count, differing
from modelmerger.output.documents import made_folder
from modelmerger.output.entries import (
    close_quietly,
    create_file,
    discard,
    entered,
    is_directory,
    open_directory,
    open_entry,
    write_all,
)
from modelmerger.output.journal import Journal
from modelmerger.output.shared.locking import NOT_OURS
from modelmerger.output.shared.part_files import PARTS, PartJournals, Records
from modelmerger.output.shared.same_machine import check_same_arithmetic
from modelmerger.output.staging_directory import JOURNAL, TREE, StagingDirectory
from modelmerger.output.steps import Step
from modelmerger.values.errors import OutputError, Problem
from modelmerger.values.layout import BLOCK, Layout
from modelmerger.values.work.block_record import Piece

Wanted = AbstractSet[tuple[int, int]] | None
"""The blocks that are asked about, by file and block; None for all."""


@frozen(eq=False, repr=False)
class Ready:
    """A staging directory that a merge can go on in."""

    journal: int
    """A descriptor, for appending."""
    tree: int
    """A descriptor of the directory in which the files of the layout are, each with its size."""
    records: Records
    """Of the blocks that need not be made again."""
    removed_other_plan: bool
    """Whether another plan's unfinished merge was thrown away."""
    notes: Sequence[Problem] = ()
    """What is to be said of what was removed."""


def made_ready(
    directory: StagingDirectory,
    plan: str,
    layout: Layout,
    closing: ExitStack,
    *,
    decides: Mapping[str, str] = MappingProxyType({}),
    wanted: Wanted = None,
    reread: bool = False,
) -> Ready:
    """Resumes what the directory holds if it is of this plan, else begins anew.

    `closing` closes what is opened. decides: what the plan's digest is made of. wanted, reread: see `records_of`.
    Raises `OutputError` for a directory that is none of ours, and for what shares made on machines whose arithmetic
    comes to other bits; `OSError` for what the system says.
    """
    found = directory.journal()
    if found is None:
        raise OutputError(Problem(NOT_OURS, str(directory.root)))
    if found.plan == plan:
        return _resumed(directory, layout, found, closing, wanted, reread)
    check_same_arithmetic(PartJournals.of(directory.descriptor), found.plan, decides, directory.root)
    return _begun(directory, layout, journal.header(plan), bool(found.plan), closing)


def has_all_files(tree: int, layout: Layout) -> bool:
    """Whether each file of the layout is in an open tree, with its size."""
    for file in layout.files:
        try:
            status = os.stat(file.name, dir_fd=tree, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not _is_weights(status, file.size):
            return False
    return True


def records_of(
    tree: int, layout: Layout, journals: PartJournals, own: Records, *, wanted: Wanted = None, reread: bool = False
) -> Records:
    """Of the blocks that are in the files of an open tree as they were written, and need not be made again.

    Those of shares that ended well are taken as they are; others, and with `reread` all, are read and compared with
    their digests. journals: of shares of this plan. own: what another journal says of blocks. wanted: the blocks that
    are asked about; None for all.
    """
    inodes = {
        number: os.stat(file.name, dir_fd=tree, follow_symlinks=False).st_ino
        for number, file in enumerate(layout.files)
    }
    sure = {} if reread else journals.sure(inodes)
    known = {**journals.records, **own, **sure}
    if wanted is not None:
        known = {key: record for key, record in known.items() if key in wanted}
    records: Records = {}
    for number, file in enumerate(layout.files):
        records |= _intact(tree, number, file.name, file.size, known, sure.keys())
    return records


def _begun(
    directory: StagingDirectory, layout: Layout, header: Mapping[str, Any], other_plan: bool, closing: ExitStack
) -> Ready:
    step, inside = directory.step, directory.descriptor
    said = directory.remove_tree()
    discard(PARTS, inside)
    discard(JOURNAL, inside)
    step("create", directory.root / JOURNAL)
    descriptor = create_file(JOURNAL, inside, os.O_WRONLY | os.O_APPEND)
    closing.callback(close_quietly, descriptor)
    step("journal", directory.root / JOURNAL)
    journal.append(descriptor, header)
    step("fsync", directory.root / JOURNAL)
    os.fsync(descriptor)
    step("create", directory.tree)
    os.mkdir(TREE, dir_fd=inside)
    tree = _open_tree(inside, closing)
    for file in layout.files:
        _allocate(tree, directory.tree, file.name, file.size, step)
    return Ready(descriptor, tree, {}, other_plan, said)


def _resumed(
    directory: StagingDirectory, layout: Layout, found: Journal, closing: ExitStack, wanted: Wanted, reread: bool
) -> Ready:
    """Keeps the files of weights and the blocks that have the digests the journal names; all else is made again."""
    step, inside = directory.step, directory.descriptor
    descriptor = open_entry(JOURNAL, inside, os.O_WRONLY | os.O_APPEND)
    closing.callback(close_quietly, descriptor)
    step("journal", directory.root / JOURNAL)
    write_all(descriptor, b"\n")  # ends a line that a kill may have torn
    said = directory.remove_tree() if directory.holds_old_output() else []
    if not is_directory(TREE, inside):
        step("create", directory.tree)
        discard(TREE, inside)
        os.mkdir(TREE, dir_fd=inside)
    tree = _open_tree(inside, closing)
    present = _kept_in(tree, "", {file.name: file.size for file in layout.files}, directory)
    if any(file.name not in present for file in layout.files):  # what shares said of a file that is gone is void
        discard(PARTS, inside)
    if reread and not found.reread:
        journal.append(descriptor, journal.reread_line())
    reread = reread or found.reread
    own = dict(found.records)
    for number, file in enumerate(layout.files):
        if file.name not in present:
            own = {key: record for key, record in own.items() if key[0] != number}
            _allocate(tree, directory.tree, file.name, file.size, step)
    journals = PartJournals.of(inside).of_plan(found.plan)
    records = records_of(tree, layout, journals, own, wanted=wanted, reread=reread)
    return Ready(descriptor, tree, records, False, said)


def _kept_in(folder: int, prefix: str, sizes: Mapping[str, int], directory: StagingDirectory) -> set[str]:
    """The names of the files of weights in an open folder of the tree. All else in it is removed. sizes: by name."""
    kept: set[str] = set()
    for entry in os.listdir(folder):
        name = f"{prefix}{entry}"
        status = os.stat(entry, dir_fd=folder, follow_symlinks=False)
        directory.check_own(status, f"{TREE}/{name}")
        if stat.S_ISDIR(status.st_mode) and any(of_weights.startswith(f"{name}/") for of_weights in sizes):
            with entered(f"{entry}/", folder) as (inner, _):
                kept |= _kept_in(inner, f"{name}/", sizes, directory)
        elif _is_weights(status, sizes.get(name)):
            kept.add(name)
        else:
            directory.step("remove", directory.tree / name)
            discard(entry, folder)
    return kept


def _is_weights(status: os.stat_result, size: int | None) -> bool:
    """Whether what the system says of a file may be said of one of the layout, which has this size."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and status.st_size == size


def _open_tree(inside: int, closing: ExitStack) -> int:
    tree = open_directory(TREE, inside)
    closing.callback(close_quietly, tree)
    return tree


def _allocate(tree: int, root: Path, name: str, size: int, step: Step) -> None:
    """A new file of that size, with its room on the disk where the file system can reserve it."""
    path = root / name
    with made_folder(tree, root, name, step) as (folder, last):
        step("create", path)
        descriptor = create_file(last, folder)
    try:
        step("allocate", path)
        try:
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
            else:
                os.ftruncate(descriptor, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _intact(
    tree: int, number: int, name: str, size: int, records: Records, sure: AbstractSet[tuple[int, int]]
) -> Records:
    """Which of these blocks are in the file as they were written. sure: those that are not read."""
    descriptor = open_entry(name, tree, os.O_RDONLY)
    try:
        return {
            (number, block): records[number, block]
            for block in range(block_count(size))
            if (number, block) in records
            and _is_intact(descriptor, block, size, records[number, block].pieces, (number, block) in sure)
        }
    finally:
        os.close(descriptor)


def _is_intact(descriptor: int, block: int, size: int, pieces: Sequence[Piece], sure: bool) -> bool:
    begin = block * BLOCK
    whole = sum(piece.length for piece in pieces) == min(BLOCK, size - begin)
    return whole and (sure or not any(True for _ in differing(descriptor, begin, pieces)))
