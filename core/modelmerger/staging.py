"""The staging directory beside the output: locked, written by position, journalled, and resumed where its plan is the same.

`.NAME.modelmerger/` holds `journal` (a header line with the plan's digest, then a line for each finished block) and
`model/`, the tree that becomes the output in one rename. A journal line is believed only if the block it speaks of still
has the digest it names, so lines need no fsync of their own.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from attrs import field, frozen

from modelmerger.digests import block_count, block_digest
from modelmerger.errors import OutputError, Problem
from modelmerger.layout import Layout
from modelmerger.system import start_writeback

Step = Callable[[str, Path], None]
JOURNAL, TREE = "journal", "model"
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


@frozen
class BlockRecord:
    """What is known of a finished block: its digest, and what was counted and observed while it was made."""

    digest: str
    counts: Mapping[str, int] = field(factory=dict)
    observed: Mapping[str, Mapping[str, float]] = field(factory=dict)


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turns what the system says about writing into `OutputError` with the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        room = " Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else " Check the disk"
        raise OutputError(
            Problem(f"cannot be written: {reason}.{room}, then run the same command again.", str(path))
        ) from error


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

    def close(self) -> None:
        for descriptor in (self._journal_fd, self._tree_fd, self._root_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._journal_fd = self._tree_fd = self._root_fd = -1

    def open_for_writing(self, file: int) -> int:
        """A descriptor of a file of the layout, for `write`. The caller closes it."""
        name = self._layout.files[file].name
        return os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._tree_fd)

    def write(self, descriptor: int, file: int, content: memoryview, offset: int) -> None:
        self._step("write", self.tree / self._layout.files[file].name)
        while content:
            count = os.pwrite(descriptor, content, offset)
            content, offset = content[count:], offset + count

    def record(self, descriptor: int, file: int, block: int, record: BlockRecord, offset: int, length: int) -> None:
        """Notes a finished block and asks for its writeback."""
        start_writeback(descriptor, offset, length)
        line = {"file": file, "block": block, "digest": record.digest}
        line |= {key: value for key, value in (("counts", record.counts), ("observed", record.observed)) if value}
        with self._lock:
            self._step("journal", self.root / JOURNAL)
            os.write(self._journal_fd, json.dumps(line).encode() + b"\n")
            self.records[file, block] = record

    def write_document(self, name: str, content: bytes) -> None:
        """A whole small file of the output, in a sub-folder if its name says so."""
        *folders, last = name.split("/")
        directory = os.dup(self._tree_fd)
        try:
            for folder in folders:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=directory)
                inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                os.close(directory)
                directory = inner
            self._step("create", self.tree / name)
            with os.fdopen(os.open(last, _CREATE, 0o666, dir_fd=directory), "wb") as file:
                self._step("write", self.tree / name)
                file.write(content)
                file.flush()
                self._step("fsync", self.tree / name)
                os.fsync(file.fileno())
            if folders:
                os.fsync(directory)
        finally:
            os.close(directory)

    def sync(self) -> None:
        """Everything staged is on the disk when this returns: files first, then their directory."""
        for index, file in enumerate(self._layout.files):
            self._step("fsync", self.tree / file.name)
            descriptor = self.open_for_writing(index)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._step("fsync", self.tree)
        os.fsync(self._tree_fd)

    def remove(self) -> None:
        """Removes the staging directory and what is in it, the journal last, so that a killed removal is recognised as ours."""
        self._step("remove", self.root)
        shutil.rmtree(self.tree, ignore_errors=not self.tree.exists())
        self._step("remove", self.root / JOURNAL)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(JOURNAL, dir_fd=self._root_fd)
        self._step("remove", self.root)
        self.root.rmdir()

    def _locked(self) -> int:
        """The staging directory, made if need be, held by an exclusive lock that goes with this process."""
        while True:
            self._step("create", self.root)
            with contextlib.suppress(FileExistsError):
                self.root.mkdir()
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                message = "is being written by another merge at this moment. Wait for it, or give another output path."
                raise OutputError(Problem(message, str(self.target))) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(self.root, follow_symlinks=False)):
                    return descriptor
            os.close(descriptor)

    def _open(self) -> None:
        found = _journal_lines(self._root_fd)
        if found is None and os.listdir(self._root_fd):
            message = "exists and is no staging directory of a merge. Move it away, or give another output path."
            raise OutputError(Problem(message, str(self.root)))
        if found and found[0] == self._header():
            self._resume(found[1:])
        else:
            self.removed_other_plan = bool(found)
            self._start()

    def _header(self) -> dict[str, Any]:
        return {"modelmerger": 1, "plan": self._plan_digest}

    def _start(self) -> None:
        for name in os.listdir(self._root_fd):
            if name == TREE:
                self._step("remove", self.tree)
                shutil.rmtree(self.tree)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(JOURNAL, dir_fd=self._root_fd)
        self._step("create", self.root / JOURNAL)
        self._journal_fd = os.open(JOURNAL, _CREATE | os.O_APPEND, 0o666, dir_fd=self._root_fd)
        self._step("journal", self.root / JOURNAL)
        os.write(self._journal_fd, json.dumps(self._header()).encode() + b"\n")
        self._step("create", self.tree)
        os.mkdir(TREE, dir_fd=self._root_fd)
        self._tree_fd = self._directory()
        for file in self._layout.files:
            self._allocate(file.name, file.size)

    def _resume(self, lines: list[dict[str, Any]]) -> None:
        """Keeps the files of weights and the blocks that have the digests the journal names; all else is made again."""
        self._journal_fd = os.open(
            JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root_fd
        )
        with contextlib.suppress(FileExistsError):
            os.mkdir(TREE, dir_fd=self._root_fd)
        self._tree_fd = self._directory()
        sizes = {file.name: file.size for file in self._layout.files}
        for entry in os.listdir(self._tree_fd):
            found = os.stat(entry, dir_fd=self._tree_fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(self.tree / entry)
            elif not stat.S_ISREG(found.st_mode) or sizes.get(entry) != found.st_size:
                os.unlink(entry, dir_fd=self._tree_fd)
        present = set(os.listdir(self._tree_fd))
        by_file: dict[int, list[dict[str, Any]]] = {}
        for line in lines:
            by_file.setdefault(line["file"], []).append(line)
        for index, file in enumerate(self._layout.files):
            if file.name in present:
                self.records |= self._intact(index, file.name, file.size, by_file.get(index, []))
            else:
                self._allocate(file.name, file.size)

    def _intact(
        self, index: int, name: str, size: int, lines: list[dict[str, Any]]
    ) -> dict[tuple[int, int], BlockRecord]:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._tree_fd)
        try:
            return {
                (index, line["block"]): BlockRecord(line["digest"], line.get("counts", {}), line.get("observed", {}))
                for line in lines
                if 0 <= line["block"] < block_count(size) and block_digest(descriptor, line["block"]) == line["digest"]
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
                if size:
                    os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)


def _journal_lines(directory: int) -> list[dict[str, Any]] | None:
    """The lines of the journal that are whole; None where there is no journal."""
    try:
        descriptor = os.open(JOURNAL, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        text = file.read()
    lines = []
    for line in text.split(b"\n")[:-1]:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
