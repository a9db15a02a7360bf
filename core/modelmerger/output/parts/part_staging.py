"""What one share of a merge writes into the files that all shares have: beside others, and never while a merge does."""

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from modelmerger.output import journal, run_token
from modelmerger.output.entries import (
    close_quietly,
    create_file,
    discard,
    open_directory,
    open_entry,
    sync_directory,
    write_all,
)
from modelmerger.output.parent_folder import make_parent
from modelmerger.output.resuming import has_all_files, made_ready, records_of
from modelmerger.output.shared.locking import LockedError, locked, unlock
from modelmerger.output.shared.owner import PREPARES, OwnedError, Owner, Ownership, check_free
from modelmerger.output.shared.part_files import PARTS, PartJournals, Records, journal_of, owner_of
from modelmerger.output.staged_files import StagedFiles
from modelmerger.output.staging_directory import OWNER, TREE, StagingDirectory, is_published, open_for_now
from modelmerger.output.steps import Step
from modelmerger.output.system_errors import output_errors
from modelmerger.values.layout import Layout
from modelmerger.values.work.block_record import BlockRecord
from modelmerger.values.work.part import Part

PATIENCE = 100
"""How often a share looks again, a tenth of a second apart, where somebody is at work there who does not say what."""


def pause() -> None:
    """Waits for a moment that is not the same for all shares."""
    time.sleep(random.uniform(0.05, 0.15))  # noqa: S311 (no secret)


class PartStaging(StagedFiles):
    """The files of a plan's layout, staged for a target, for one share of the merge and as long as the context lasts.

    decides: what the plan's digest is made of. blocks: those of the share, by file and block. direct: see
    `StagedFiles`. Raises `OutputError` where a whole merge, another plan's share, or the same share is at work there.
    """

    def __init__(
        self,
        target: Path,
        part: Part,
        plan_digest: str,
        decides: Mapping[str, str],
        layout: Layout,
        blocks: AbstractSet[tuple[int, int]],
        step: Step,
        *,
        direct: bool = False,
        wait: Callable[[], None] = pause,
    ) -> None:
        self._directory = StagingDirectory(target, step)
        super().__init__(self._directory.tree, layout, step, direct=direct)
        self.records: Records = {}
        """Those blocks of the share that are done."""
        self.token = ""
        """Of the run, as workers elsewhere must have it."""
        self.removed_other_plan = False
        """Whether an unfinished merge of another plan was in the way and is gone."""
        self._part, self._plan, self._decides = part, plan_digest, decides
        self._layout, self._blocks = layout, blocks
        self._wait = wait
        self._lock = threading.Lock()
        self._journal_fd = self._parts_fd = -1
        self._journalled: set[tuple[int, int]] = set()
        self._owner = Owner.this(os.urandom(16).hex(), str(part))
        self._ownership: Ownership | None = None
        self._closing = ExitStack()

    @property
    def tree(self) -> Path:
        """The directory in which the files are."""
        return self._directory.tree

    def __enter__(self) -> Self:
        with output_errors(self._directory.root), ExitStack() as closing:
            make_parent(self._directory.target, self._step)
            self._join(closing)
            root = self._directory.descriptor
            self._journal_fd = self._own_journal(closing)
            found = self._directory.journal() or journal.Journal()
            journals, own = PartJournals.of(root).of_plan(self._plan), dict(found.records)
            self.records = records_of(
                self._tree_fd, self._layout, journals, own, wanted=self._blocks, reread=found.reread
            )
            self.token = run_token.read_token(root)
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
        self._tree_fd = self._journal_fd = self._parts_fd = -1

    def record(self, file: int, block: int, record: BlockRecord) -> None:
        """Notes a finished block."""
        path = self._directory.root / PARTS
        if self._ownership is not None:
            self._ownership.check()
        with self._lock, output_errors(path):
            self._step("journal", path)
            journal.append(self._journal_fd, journal.block_line(file, block, record))
            self._journalled.add((file, block))
            self.records[file, block] = record

    def finish(self) -> None:
        """Says that the share ended well, once all of its blocks are on the disk."""
        for key in sorted(self.records.keys() - self._journalled):
            self.record(*key, self.records[key])
        inodes: dict[int, int] = {}
        for number in sorted({file for file, _ in self._blocks}):
            descriptor = self.open_file(number)
            try:
                with output_errors(self._paths[number]):
                    self._step("fsync", self._paths[number])
                    os.fsync(descriptor)
                    inodes[number] = os.fstat(descriptor).st_ino
            finally:
                self.close_file(descriptor, number)
        with output_errors(self._directory.root / PARTS):
            journal.append(self._journal_fd, journal.ended_line(inodes))
            os.fsync(self._journal_fd)
            sync_directory(self._parts_fd)

    def _join(self, closing: ExitStack) -> None:
        """Comes to have the share for itself in files that are ready. Raises `OutputError`, and `OSError`."""
        patience = PATIENCE
        while True:
            try:
                if not self._is_ready():
                    self._prepare()
                with ExitStack() as joining:
                    self._hold(joining)
                    if self._is_ready():
                        closing.push(joining.pop_all())
                        return
            except FileNotFoundError:  # what was staged was published, or removed, at that moment
                patience -= 1
                if not patience:
                    raise
            except (LockedError, OwnedError) as error:
                owner = error.owner if isinstance(error, OwnedError) else None
                if owner is None:  # it has just come, or is about to go
                    patience -= 1
                if not patience or (owner is not None and owner.doing != PREPARES):
                    raise
            self._wait()

    def _is_ready(self) -> bool:
        """Whether files of this plan are staged, of which none is missing."""
        try:
            with open_for_now(self._directory.root) as root:
                found = journal.read_journal(root)
                if found is None or found.plan != self._plan:
                    return False
                tree = open_directory(TREE, root)
                try:
                    stands = found.tree is None or found.tree == os.fstat(tree).st_ino  # else it is published, or old
                    return stands and has_all_files(tree, self._layout)
                finally:
                    os.close(tree)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _prepare(self) -> None:
        """Makes the files ready, with nobody else at work there."""
        directory = StagingDirectory(self._directory.target, self._step, doing=PREPARES)
        with directory, ExitStack() as closing:
            if directory.holds_old_output() or is_published(directory.target):
                directory.remove()
                return
            ready = made_ready(directory, self._plan, self._layout, closing, decides=self._decides, wanted=frozenset())
            self.removed_other_plan |= ready.removed_other_plan
            run_token.write_token(directory.descriptor, os.urandom(16).hex())

    def _hold(self, closing: ExitStack) -> None:
        directory, target = self._directory, str(self._directory.target)
        root = directory.descriptor = self._locked()
        closing.callback(unlock, root)
        directory.check_trusted()
        with suppress(FileExistsError):
            os.mkdir(PARTS, 0o700, dir_fd=root)
        self._parts_fd = open_directory(PARTS, root)
        closing.callback(close_quietly, self._parts_fd)
        ownership = Ownership(self._parts_fd, owner_of(self._part), self._owner, target)
        ownership.take()
        closing.callback(ownership.release)
        self._ownership = ownership
        check_free(root, OWNER, self._owner.token, target)
        self._tree_fd = open_directory(TREE, root)
        closing.callback(close_quietly, self._tree_fd)

    def _locked(self) -> int:
        directory = self._directory
        try:
            return locked(directory.root, directory.target, self._step, alone=False)
        except LockedError:
            directory.say_who()
            raise

    def _own_journal(self, closing: ExitStack) -> int:
        name = journal_of(self._part)
        found = journal.read_journal(self._parts_fd, name)
        if found is not None and found.plan == self._plan:
            self._journalled = set(found.records)
            descriptor = open_entry(name, self._parts_fd, os.O_WRONLY | os.O_APPEND)
            closing.callback(close_quietly, descriptor)
            write_all(descriptor, b"\n")  # ends a line that a kill may have torn
            return descriptor
        discard(name, self._parts_fd)
        self._step("create", self._directory.root / PARTS / name)
        descriptor = create_file(name, self._parts_fd, os.O_WRONLY | os.O_APPEND)
        closing.callback(close_quietly, descriptor)
        journal.append(descriptor, journal.header(self._plan, self._decides))
        return descriptor
