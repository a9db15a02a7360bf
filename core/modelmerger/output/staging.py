"""The staging directory beside the output: locked, written by position, journalled, and resumed where its plan is the same.

`.NAME.modelmerger/` holds `journal` and `model/`, the tree that becomes the output in one rename.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from modelmerger.output import journal
from modelmerger.output.digests import Piece, block_count, differing
from modelmerger.output.journal import BlockRecord, Journal, read_journal
from modelmerger.output.system import start_writeback
from modelmerger.values.errors import OutputError, Problem
from modelmerger.values.layout import BLOCK, Layout

Step = Callable[[str, Path], None]
JOURNAL, TREE = journal.NAME, "model"
NOT_OURS = "exists and is no staging directory of a merge. Move it away, or give another output path."
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def no_step(_: str, __: Path) -> None:
    """The seam between steps, outside tests."""


def staging_path(target: Path) -> Path:
    return target.parent / f".{target.name}.modelmerger"


def staged_size(target: Path) -> int:
    """Bytes on the disk that an earlier, unfinished merge to this target takes and a new one will reuse or free."""
    tree = staging_path(target) / TREE
    with contextlib.suppress(OSError):
        return sum(path.lstat().st_blocks * 512 for path in tree.iterdir())
    return 0


def is_published(target: Path) -> bool:
    """Whether what was staged beside the target has the target's name by now, and only clearing up is left."""
    try:
        descriptor = os.open(staging_path(target), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = read_journal(descriptor)
        return found is not None and found.tree == os.stat(target, follow_symlinks=False).st_ino
    except OSError:
        return False
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turns what the system says about writing into `OutputError` with the path."""
    try:
        yield
    except OSError as error:
        raise _output_error(path, error) from error


def _output_error(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or type(error).__name__
    room = " Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else " Check the disk"
    return OutputError(Problem(f"cannot be written: {reason}.{room}, then run the same command again.", str(path)))


class Staging:
    """An open, locked staging directory. `records` are the blocks that are done: those of an earlier run of the same plan too."""

    def __init__(self, target: Path, plan_digest: str, layout: Layout, step: Step = no_step) -> None:
        self.target = target
        self.root = staging_path(target)
        self.tree = self.root / TREE
        self.records: dict[tuple[int, int], BlockRecord] = {}
        self.removed_other_plan = False
        self._plan_digest = plan_digest
        self._layout = layout
        self._paths = [self.tree / file.name for file in layout.files]
        self._step = step
        self._lock = threading.Lock()
        self._root_fd = -1
        self._tree_fd = -1
        self._journal_fd = -1

    def __enter__(self) -> Self:
        with output_errors(self.root):
            self._root_fd = self._locked()
            try:
                self._open()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def locked(self) -> Iterator[Journal | None]:
        """The lock alone, and what the journal says: nothing is made ready for a merge. `remove` may be called inside.

        An empty directory has an empty journal; None stands for a directory that is none of ours.
        """
        with output_errors(self.root):
            self._root_fd = self._locked()
        try:
            with output_errors(self.root):
                found = self._journal()
            yield found
        finally:
            self.close()

    def close(self) -> None:
        for descriptor in (self._journal_fd, self._tree_fd, self._root_fd):
            if descriptor >= 0:
                with contextlib.suppress(OSError):  # nothing depends on the last lines of the journal
                    os.close(descriptor)
        self._journal_fd = self._tree_fd = self._root_fd = -1

    def open_for_writing(self, file: int) -> int:
        """A descriptor of a file of the layout, for `write`. The caller gives it to `close_written`."""
        path = self._paths[file]
        with output_errors(path):
            return os.open(path.name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._tree_fd)

    def write(self, descriptor: int, file: int, content: memoryview, offset: int) -> None:
        path = self._paths[file]
        try:  # every window comes through here, so without the generator of `output_errors`
            self._step("write", path)
            while content:
                count = os.pwrite(descriptor, content, offset)
                content, offset = content[count:], offset + count
        except OSError as error:
            raise _output_error(path, error) from error

    def record(self, descriptor: int, file: int, block: int, record: BlockRecord, offset: int, length: int) -> None:
        """Notes a finished block and asks for its writeback."""
        start_writeback(descriptor, offset, length)
        with self._lock, output_errors(self.root / JOURNAL):
            self._step("journal", self.root / JOURNAL)
            journal.append(self._journal_fd, journal.block_line(file, block, record))
            self.records[file, block] = record

    def write_document(self, name: str, content: bytes) -> None:
        """A whole small file of the output, in a sub-folder if its name says so."""
        *folders, last = name.split("/")
        path = self.tree
        directory = os.dup(self._tree_fd)
        try:
            with output_errors(self.tree / name):
                for folder in folders:
                    path /= folder
                    directory = self._enter(directory, folder, path)
                self._step("create", self.tree / name)
                with os.fdopen(os.open(last, _CREATE, 0o666, dir_fd=directory), "wb") as file:
                    self._step("write", self.tree / name)
                    file.write(content)
                    file.flush()
                    self._step("fsync", self.tree / name)
                    os.fsync(file.fileno())
                if folders:
                    self._step("fsync", path)
                    os.fsync(directory)
        finally:
            os.close(directory)

    def _enter(self, parent: int, folder: str, path: Path) -> int:
        """A descriptor of a sub-folder, made if need be and then on the disk, in place of its parent's."""
        try:
            self._step("create", path)
            os.mkdir(folder, dir_fd=parent)
            self._step("fsync", path.parent)
            os.fsync(parent)
        except FileExistsError:
            pass
        inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        os.close(parent)
        return inner

    def sync(self) -> None:
        """Everything staged is on the disk when this returns: files first, then their directory."""
        for index, path in enumerate(self._paths):
            descriptor = self.open_for_writing(index)
            try:
                with output_errors(path):
                    self._step("fsync", path)
                    os.fsync(descriptor)
            finally:
                close_written(descriptor, path)
        with output_errors(self.tree):
            self._step("fsync", self.tree)
            os.fsync(self._tree_fd)

    def mark(self) -> None:
        """Notes in the journal which tree is about to be published."""
        with output_errors(self.root / JOURNAL):
            self._step("journal", self.root / JOURNAL)
            journal.append(self._journal_fd, journal.tree_line(os.fstat(self._tree_fd).st_ino))

    def remove(self) -> None:
        """Removes the staging directory and what is in it, the journal last, so that a killed removal is recognised as ours.

        Raises `OSError` where that fails.
        """
        self._step("remove", self.tree)
        _discard(TREE, self._root_fd)
        self._step("remove", self.root / JOURNAL)
        _discard(JOURNAL, self._root_fd)
        self._step("remove", self.root)
        self.root.rmdir()

    def _locked(self) -> int:
        """The staging directory, made if need be, held by an exclusive lock that goes with this process."""
        while True:
            self._step("create", self.root)
            with contextlib.suppress(FileExistsError):
                self.root.mkdir()
            try:
                descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # whoever held it has just removed it
            except NotADirectoryError:
                raise OutputError(Problem(NOT_OURS, str(self.root))) from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.stat(self.root, follow_symlinks=False)):
                        return descriptor
            except BaseException as error:
                os.close(descriptor)
                if not isinstance(error, BlockingIOError):
                    raise
                message = "is being written by another merge at this moment. Wait for it, or give another output path."
                raise OutputError(Problem(message, str(self.target))) from None
            os.close(descriptor)

    def _journal(self) -> Journal | None:
        """The journal of the locked directory. None where the directory is none of ours."""
        entries = os.listdir(self._root_fd)
        if not entries:
            return Journal()
        found = read_journal(self._root_fd)
        return None if found is None or (not found.plan and entries != [JOURNAL]) else found

    def _open(self) -> None:
        found = self._journal()
        if found is None:
            raise OutputError(Problem(NOT_OURS, str(self.root)))
        if found.plan == self._plan_digest:
            self._resume(found)
        else:
            self.removed_other_plan = bool(found.plan)
            self._start()

    def _start(self) -> None:
        self._step("remove", self.tree)
        _discard(TREE, self._root_fd)
        _discard(JOURNAL, self._root_fd)
        self._step("create", self.root / JOURNAL)
        self._journal_fd = os.open(JOURNAL, _CREATE | os.O_APPEND, 0o666, dir_fd=self._root_fd)
        self._step("journal", self.root / JOURNAL)
        journal.append(self._journal_fd, journal.header(self._plan_digest))
        self._step("fsync", self.root / JOURNAL)
        os.fsync(self._journal_fd)
        self._step("create", self.tree)
        os.mkdir(TREE, dir_fd=self._root_fd)
        self._tree_fd = self._directory()
        for file in self._layout.files:
            self._allocate(file.name, file.size)

    def _resume(self, found: Journal) -> None:
        """Keeps the files of weights and the blocks that have the digests the journal names; all else is made again."""
        self._journal_fd = os.open(
            JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root_fd
        )
        self._step("journal", self.root / JOURNAL)
        os.write(self._journal_fd, b"\n")  # ends a line that a kill may have torn
        if not _is_directory(TREE, self._root_fd):
            self._step("create", self.tree)
            _discard(TREE, self._root_fd)
            os.mkdir(TREE, dir_fd=self._root_fd)
        self._tree_fd = self._directory()
        sizes = {file.name: file.size for file in self._layout.files}
        for entry in os.listdir(self._tree_fd):
            status = os.stat(entry, dir_fd=self._tree_fd, follow_symlinks=False)
            is_weights = stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and sizes.get(entry) == status.st_size
            if not is_weights:
                self._step("remove", self.tree / entry)
                _discard(entry, self._tree_fd)
        present = set(os.listdir(self._tree_fd))
        for index, file in enumerate(self._layout.files):
            if file.name in present:
                self.records |= self._intact(index, file.name, file.size, found.records)
            else:
                self._allocate(file.name, file.size)

    def _intact(
        self, index: int, name: str, size: int, records: Mapping[tuple[int, int], BlockRecord]
    ) -> dict[tuple[int, int], BlockRecord]:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._tree_fd)
        try:
            return {
                (index, block): records[index, block]
                for block in range(block_count(size))
                if (index, block) in records and _is_intact(descriptor, block, size, records[index, block].pieces)
            }
        finally:
            os.close(descriptor)

    def _directory(self) -> int:
        return os.open(TREE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root_fd)

    def _allocate(self, name: str, size: int) -> None:
        self._step("create", self.tree / name)
        descriptor = os.open(name, _CREATE, 0o666, dir_fd=self._tree_fd)
        try:
            self._step("allocate", self.tree / name)
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


def close_written(descriptor: int, path: Path) -> None:
    """Closes what `open_for_writing` opened. A write that failed late is said here by some file systems."""
    with output_errors(path):
        os.close(descriptor)


def _is_intact(descriptor: int, block: int, size: int, pieces: Sequence[Piece]) -> bool:
    """Whether a block of a file is all there, as its pieces say it was written."""
    begin = block * BLOCK
    whole = sum(piece.length for piece in pieces) == min(BLOCK, size - begin)
    return whole and not any(True for _ in differing(descriptor, begin, pieces))


def _is_directory(name: str, directory: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    return False


def _discard(name: str, directory: int) -> None:
    """Removes an entry of a directory, whatever it is, if it is there. No link is followed."""
    if _is_directory(name, directory):
        shutil.rmtree(name, dir_fd=directory)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
