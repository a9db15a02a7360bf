"""The directory beside the output where a merge is staged: found by name, held by a lock, and removed in an order that
survives kills.

`.NAME.modelmerger/` holds `journal`, `run` and `model/`, the tree that becomes the output in one rename.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import NoReturn, Self

from modelmerger.output import journal, run_token
from modelmerger.output.entries import close_quietly, discard, is_directory, open_directory, owner_of_new, same_entry
from modelmerger.output.journal import Journal, read_journal
from modelmerger.output.parent_folder import make_parent, staging_path
from modelmerger.output.steps import Step, no_step
from modelmerger.output.system_errors import output_errors
from modelmerger.values.errors import OutputError, Problem

JOURNAL, TREE = journal.NAME, "model"
_ATTEMPTS = 1_000
"""How often the directory may go or be another one at the moment in which it is locked."""
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_UNLOCKED = "is on a file system without locks, which keep two merges apart"
_ELSEWHERE = "Give an output path on another disk, or have this one mounted with locks (flock)"
NOT_OURS = "exists and is not a staging directory of a merge. Move it away, or give another output path."


def staged_size(target: Path) -> int:
    """Bytes on the disk that an earlier, unfinished merge to this target takes and a new one will reuse or free."""
    tree = staging_path(target) / TREE
    with contextlib.suppress(OSError):
        return sum(path.lstat().st_blocks * 512 for path in tree.iterdir())
    return 0


def is_published(target: Path) -> bool:
    """Whether what was staged beside the target has the target's name by now, and only clearing up is left."""
    try:
        descriptor = open_directory(staging_path(target))
    except (OSError, ValueError):  # the latter of a NUL in the path
        return False
    try:
        found = read_journal(descriptor)
        return found is not None and found.tree == os.stat(target, follow_symlinks=False).st_ino
    except OSError:
        return False
    finally:
        os.close(descriptor)


def is_empty(target: Path) -> bool:
    """Whether the staging directory of a target is there and empty, as the last step but one of a removal leaves it."""
    try:
        descriptor = open_directory(staging_path(target))
    except (OSError, ValueError):  # the latter of a NUL in the path
        return False
    try:
        return os.listdir(descriptor) == []
    finally:
        os.close(descriptor)


def check_staging(target: Path) -> None:
    """Raises `OutputError` where something else has the name of the staging directory; and `OSError`."""
    root = staging_path(target)
    try:
        descriptor = open_directory(root)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise OutputError(Problem(NOT_OURS, str(root))) from None
    try:
        if _journal_in(descriptor) is None:
            raise OutputError(Problem(NOT_OURS, str(root)))
    finally:
        os.close(descriptor)


def _journal_in(directory: int) -> Journal | None:
    """See `StagingDirectory.journal`. directory: a descriptor."""
    entries = os.listdir(directory)
    if not entries:
        return Journal()
    found = read_journal(directory)
    return None if found is None or (not found.plan and entries != [JOURNAL]) else found


_held: set[int] = set()
"""Descriptors of locked directories."""


def _let_go() -> None:
    """A fork has them too, and would hold the lock for as long as it lives, even when its parent is gone."""
    for descriptor in _held:
        close_quietly(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


class StagingDirectory:
    """The staging directory of a target, made if need be, with the folder around both, and locked for as long as the
    context lasts.

    The lock goes with this process, however that ends. Raises `OutputError` where another merge has it, or where
    something else has the directory's name.
    """

    def __init__(self, target: Path, step: Step = no_step) -> None:
        self.target = target
        self.root = staging_path(target)
        self.tree = self.root / TREE
        """Where the output grows."""
        self.step = step
        self.descriptor = -1
        """Of the directory, while it is locked."""
        self.owner = os.geteuid()
        """The user whose what is staged must be, while it is locked."""

    def __enter__(self) -> Self:
        with output_errors(self.root):
            make_parent(self.target, self.step)
            self.descriptor = self._locked()
            try:
                self._check_trusted()
            except BaseException:
                os.close(self.descriptor)
                raise
        _held.add(self.descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        _held.discard(self.descriptor)
        close_quietly(self.descriptor)
        self.descriptor = -1

    def journal(self) -> Journal | None:
        """What the journal says; an empty one for an empty directory. None: the directory is none of ours."""
        with output_errors(self.root):
            return _journal_in(self.descriptor)

    def remove(self) -> list[Problem]:
        """Removes the directory and what is in it, the journal last, so that a killed removal is recognised as ours.

        Returns what is to be said of the tree. Raises `OSError` where that fails.
        """
        said = self.remove_tree()
        self.step("remove", self.root / run_token.NAME)
        discard(run_token.NAME, self.descriptor)
        self.step("remove", self.root / JOURNAL)
        discard(JOURNAL, self.descriptor)
        self.step("remove", self.root)
        if same_entry(self.root, os.fstat(self.descriptor)):
            self.root.rmdir()
        return said

    def remove_tree(self) -> list[Problem]:
        """Removes the tree: what was staged, or the output that it was exchanged for, of which nothing is lost that no
        merge wrote. Returns what is to be said of that. Raises `OSError`.
        """
        self.step("remove", self.tree)
        if self.holds_old_output():
            from modelmerger.output.earlier.old_output import remove_old_output

            return remove_old_output(self.tree, self.target)
        discard(TREE, self.descriptor)
        return []

    def holds_old_output(self) -> bool:
        """Whether the tree is what the output was before it was exchanged for what was staged."""
        found = read_journal(self.descriptor)
        if found is None or found.tree is None or not is_directory(TREE, self.descriptor):
            return False
        return os.stat(TREE, dir_fd=self.descriptor, follow_symlinks=False).st_ino != found.tree

    def check_own(self, found: os.stat_result, name: str) -> None:
        """Raises `OutputError` for an entry of the directory that belongs to somebody else."""
        if found.st_uid != self.owner:
            self._refuse(self.root / name, f"belongs to user {found.st_uid}, and this merge to {self.owner}")

    def _check_trusted(self) -> None:
        """What is in the directory is gone on with, so nobody else may have made it, or be able to write to it."""
        found = os.fstat(self.descriptor)
        if found.st_uid != self.owner:
            self.owner = owner_of_new(self.root.parent)
        self.check_own(found, "")
        if found.st_mode & 0o022:
            self._refuse(self.root, "may be written to by others")
        for name in (JOURNAL, TREE, run_token.NAME):
            with contextlib.suppress(FileNotFoundError):
                self.check_own(os.stat(name, dir_fd=self.descriptor, follow_symlinks=False), name)

    def _refuse(self, path: Path, why: str) -> NoReturn:
        message = f"{why}, so what is staged there is not trusted. Remove {self.root}, or give another output path."
        raise OutputError(Problem(message, str(path)))

    def _locked(self) -> int:
        for _ in range(_ATTEMPTS):
            self.step("create", self.root)
            with contextlib.suppress(FileExistsError):
                self.root.mkdir(0o700)
            try:
                descriptor = open_directory(self.root)
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
                if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                    raise OutputError(
                        Problem(f"{_UNLOCKED} ({error.strerror}). {_ELSEWHERE}.", str(self.root))
                    ) from None
                if not isinstance(error, BlockingIOError):
                    raise
                message = "is being written by another merge at this moment. Wait for it, or give another output path."
                raise OutputError(Problem(message, str(self.target))) from None
            os.close(descriptor)
        message = "is another directory whenever it is looked at. Give an output path on another disk."
        raise OutputError(Problem(message, str(self.root)))
