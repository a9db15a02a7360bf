"""The directory beside the output where a merge is staged: found by name, held by a lock, and removed in an order that
survives kills.

`.NAME.modelmerger/` holds `journal`, `run`, `owner` and `model/`, the tree that becomes the output in one rename; and
`parts/`, what shares of the merge say of themselves.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Self

from modelmerger.output import journal, run_token
from modelmerger.output.entries import discard, is_directory, open_directory, owner_of_new, same_entry
from modelmerger.output.journal import Journal, read_journal
from modelmerger.output.parent_folder import make_parent, staging_path
from modelmerger.output.shared.locking import ATTEMPTS, NOT_OURS, LockedError, locked, unlock
from modelmerger.output.shared.owner import MERGES, Owner, Ownership, check_free
from modelmerger.output.shared.part_files import PARTS, check_no_parts
from modelmerger.output.steps import Step, no_step
from modelmerger.output.system_errors import output_errors
from modelmerger.values.errors import OutputError, Problem

JOURNAL, TREE = journal.NAME, "model"
OWNER = "owner"
"""What the file is called that says who merges."""


def staged_size(target: Path) -> int:
    """Bytes on the disk that an earlier, unfinished merge to this target takes and a new one will reuse or free."""
    tree = staging_path(target) / TREE
    with contextlib.suppress(OSError):
        return sum(path.lstat().st_blocks * 512 for path in tree.rglob("*"))
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
        return _entries(descriptor) == []
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def open_for_now(root: Path) -> Iterator[int]:
    """A descriptor of a directory. Raises `OSError`."""
    descriptor = open_directory(root)
    try:
        yield descriptor
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
        at_work = OWNER in os.listdir(descriptor)  # and may be about to begin the journal anew
        if _journal_in(descriptor) is None and not at_work:
            raise OutputError(Problem(NOT_OURS, str(root)))
    finally:
        os.close(descriptor)


def _entries(directory: int) -> list[str]:
    """What is staged in an open directory, without what says who is at work there."""
    return [name for name in os.listdir(directory) if name.partition(".")[0] != OWNER]


def _journal_in(directory: int) -> Journal | None:
    """See `StagingDirectory.journal`. directory: a descriptor."""
    entries = _entries(directory)
    if not entries:
        return Journal()
    found = read_journal(directory)
    return None if found is None or (not found.plan and entries != [JOURNAL]) else found


class StagingDirectory:
    """The staging directory of a target, made if need be, with the folder around both, and locked for as long as the
    context lasts.

    The lock goes with this process, however that ends. make: whether it is made where there is none. Raises
    `OutputError` where another merge has it, or where something else has the directory's name; `NotThereError`.
    """

    def __init__(self, target: Path, step: Step = no_step, *, doing: str = MERGES, make: bool = True) -> None:
        self.target = target
        self.root = staging_path(target)
        self.tree = self.root / TREE
        """Where the output grows."""
        self.step = step
        self.descriptor = -1
        """Of the directory, while it is locked."""
        self.owner = os.geteuid()
        """The user whose what is staged must be, while it is locked."""
        self._doing, self._make = doing, make
        self._ownership: Ownership | None = None

    def __enter__(self) -> Self:
        with output_errors(self.root):
            if self._make:
                make_parent(self.target, self.step)
            for _ in range(ATTEMPTS):
                if self._hold():
                    return self
        raise OutputError(
            Problem("is removed whenever it is looked at. Give an output path elsewhere.", str(self.root))
        )

    def __exit__(self, *_: object) -> None:
        if self._ownership is not None:
            self._ownership.release()  # before the lock, so that who gets that finds nobody
        unlock(self.descriptor)
        self.descriptor, self._ownership = -1, None

    def check_held(self) -> None:
        """Raises `OutputError` where another machine took over."""
        if self._ownership is not None:
            self._ownership.check()

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
        discard(PARTS, self.descriptor)
        self.step("remove", self.root / JOURNAL)
        discard(JOURNAL, self.descriptor)
        if self._ownership is not None:
            self._ownership.release()
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

    def _hold(self) -> bool:
        """Whether the directory is locked now; another machine may remove it at that moment."""
        try:
            self.descriptor = locked(self.root, self.target, self.step, make=self._make)
        except LockedError:
            self.say_who()
            raise
        owner = Owner.this(os.urandom(16).hex(), self._doing)
        ownership = Ownership(self.descriptor, OWNER, owner, str(self.target))
        try:
            self.check_trusted()
            with contextlib.suppress(FileNotFoundError):
                ownership.take()
                self._ownership = ownership
                check_no_parts(self.descriptor, owner.token, str(self.target))
                return True
        except BaseException:
            self.__exit__()
            raise
        self.__exit__()
        return False

    def say_who(self) -> None:
        """Raises `OutputError` that says who has the directory, if that can be found out."""
        token = os.urandom(16).hex()
        with contextlib.suppress(OSError, ValueError), open_for_now(self.root) as descriptor:
            check_free(descriptor, OWNER, token, str(self.target))
            check_no_parts(descriptor, token, str(self.target))

    def check_trusted(self) -> None:
        """What is in the directory is gone on with, so nobody else may have made it, or be able to write to it."""
        found = os.fstat(self.descriptor)
        if found.st_uid != self.owner:
            self.owner = owner_of_new(self.root.parent)
        self.check_own(found, "")
        if found.st_mode & 0o022:
            self._refuse(self.root, "may be written to by others")
        for name in (JOURNAL, TREE, run_token.NAME, OWNER, PARTS):
            with contextlib.suppress(FileNotFoundError):
                self.check_own(os.stat(name, dir_fd=self.descriptor, follow_symlinks=False), name)

    def _refuse(self, path: Path, why: str) -> NoReturn:
        message = f"{why}, so what is staged there is not trusted. Remove {self.root}, or give another output path."
        raise OutputError(Problem(message, str(path)))
