"""A merge being written: blocks by position, each journalled when it is done, and small documents beside them."""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from modelmerger.output import journal, run_token
from modelmerger.output.documents import write_document
from modelmerger.output.entries import entered, same_entry, sync_directory
from modelmerger.output.resuming import made_ready
from modelmerger.output.shared.part_files import Records
from modelmerger.output.staged_files import StagedFiles
from modelmerger.output.staging_directory import JOURNAL, StagingDirectory
from modelmerger.output.steps import Step, no_step
from modelmerger.output.system_errors import output_errors
from modelmerger.values.errors import OutputError, Problem
from modelmerger.values.layout import Layout
from modelmerger.values.work.block_record import BlockRecord


class Staging(StagedFiles):
    """What is staged for a target, locked and ready to be written to for as long as the context lasts.

    direct: see `StagedFiles`. decides, reread: see `made_ready`.
    """

    def __init__(
        self,
        target: Path,
        plan_digest: str,
        layout: Layout,
        step: Step = no_step,
        *,
        direct: bool = False,
        decides: Mapping[str, str] = MappingProxyType({}),
        reread: bool = False,
    ) -> None:
        self.directory = StagingDirectory(target, step)
        super().__init__(self.directory.tree, layout, step, direct=direct)
        self.token = os.urandom(16).hex()
        """Of this run."""
        self.records: Records = {}
        """The blocks that are done: those of an earlier run of the same plan too."""
        self.removed_other_plan = False
        """Whether an unfinished merge of another plan was in the way and is gone."""
        self.notes: Sequence[Problem] = ()
        """What is to be said of what was removed."""
        self.extra: Sequence[str] = ()
        """Names of what no merge wrote and was taken from the old output."""
        self._plan_digest = plan_digest
        self._layout = layout
        self._decides, self._reread = decides, reread
        self._lock = threading.Lock()
        self._closing = ExitStack()
        self._journal = self.root / JOURNAL  # made once: a path takes longer than the line that is written to it
        self._journal_fd = -1
        self._made: dict[str, os.stat_result] = {}

    @property
    def target(self) -> Path:
        """What the output will be called."""
        return self.directory.target

    @property
    def root(self) -> Path:
        """The staging directory."""
        return self.directory.root

    @property
    def tree(self) -> Path:
        """The directory in it that becomes the output."""
        return self.directory.tree

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            closing.enter_context(self.directory)
            with output_errors(self.root):
                how: dict[str, Any] = {"decides": self._decides, "reread": self._reread}
                ready = made_ready(self.directory, self._plan_digest, self._layout, closing, **how)
                self._step("create", self.root / run_token.NAME)
                run_token.write_token(self.directory.descriptor, self.token)
            self._tree_fd, self._journal_fd = ready.tree, ready.journal
            self.records, self.removed_other_plan, self.notes = ready.records, ready.removed_other_plan, ready.notes
            for name in self._names:
                self._hold(name)
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._tree_fd = self._journal_fd = -1
        self._closing.close()

    def record(self, file: int, block: int, record: BlockRecord) -> None:
        """Notes a finished block."""
        self.directory.check_held()
        with self._lock, output_errors(self._journal):
            self._step("journal", self._journal)
            journal.append(self._journal_fd, journal.block_line(file, block, record))
            self.records[file, block] = record

    def write_document(self, name: str, content: Iterable[bytes]) -> None:
        """A whole file of the output, piece by piece, in a sub-folder if its name says so. Raises `OutputError`."""
        write_document(self._tree_fd, self.tree, name, content, self._step)
        self._hold(name)

    def keep(self, names: Sequence[str]) -> None:
        """Takes entries of the old output into the new one, by their names. Raises `OutputError`."""
        if names:
            from modelmerger.output.earlier.kept_entries import keep_entries

            keep_entries(names, self.target, self._tree_fd, self._step)
        self.extra = names

    def sync(self) -> None:
        """Everything staged is on the disk when this returns: files first, then their folders."""
        for index, path in enumerate(self._paths):
            descriptor = self.open_file(index)
            try:
                with output_errors(path):
                    self._step("fsync", path)
                    os.fsync(descriptor)
            finally:
                self.close_file(descriptor, index)
        for folder in sorted({path.parent for path in self._paths} - {self.tree}):
            with output_errors(folder), entered(f"{folder.relative_to(self.tree)}/", self._tree_fd) as (inside, _):
                self._step("fsync", folder)
                sync_directory(inside)
        with output_errors(self.tree):
            self._step("fsync", self.tree)
            sync_directory(self._tree_fd)

    def check_held(self) -> None:
        """Raises `OutputError` where a name leads to something else than what this merge has made under it."""
        self.directory.check_held()
        held: list[tuple[Path | str, int | None, os.stat_result]] = [
            (self.root, None, os.fstat(self.directory.descriptor))
        ]
        held += [(self.tree.name, self.directory.descriptor, os.fstat(self._tree_fd))]
        held += [(name, self._tree_fd, made) for name, made in self._made.items()]
        for name, inside, made in held:
            if not same_entry(name, made, inside):
                path = self.tree / name if inside == self._tree_fd else self.root
                raise OutputError(Problem("was replaced while the merge ran. Run it again.", str(path)))

    def has_name(self, path: Path) -> bool:
        """Whether a path leads to the tree of this merge."""
        return same_entry(path, os.fstat(self._tree_fd))

    def _hold(self, name: str) -> None:
        with output_errors(self.tree / name):
            self._made[name] = os.stat(name, dir_fd=self._tree_fd, follow_symlinks=False)

    def mark(self) -> None:
        """Notes in the journal which tree is about to be published."""
        with output_errors(self._journal):
            self._step("journal", self._journal)
            journal.append(self._journal_fd, journal.tree_line(os.fstat(self._tree_fd).st_ino))
