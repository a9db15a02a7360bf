"""Files that no merge wrote, taken into the new output: they stand in both directories until the old one is removed.

Each file gets a second name (a hard link), so nothing is copied and at no moment is anything without a name. Where the
file system has no hard links, it is copied.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from modelmerger.output.entries import close_quietly, create_file, open_directory, open_entry
from modelmerger.output.steps import Step
from modelmerger.output.system_errors import output_errors
from modelmerger.values.errors import OutputError, Problem

_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}
_TAKEN = (
    "is in the new model too, so the one that no merge wrote is in its way. Move that away, then run the same again."
)
_ELSEWHERE = "lies on another disk than the output, so it cannot be kept. Move it away, then run the same again."
_KIND = "is no file, folder or link, and cannot be kept on this file system. Move it away, then run the same again."


def keep_entries(names: Iterable[str], old: Path, tree: int, step: Step) -> None:
    """Gives the new output the entries of the old one that have these names, a folder with all that is in it.

    old: the old output. tree: that of the new one, open. All is on the disk when this returns, but the
    names in `tree` itself. Raises `OutputError`, which names an entry that cannot be kept.
    """
    for name in names:
        *folders, last = name.split("/")
        with output_errors(old / name):
            source, target = open_directory(old), os.dup(tree)
            try:
                for folder in folders:
                    source, target = _inside(source, folder), _made(target, folder)
                _Keeping(step, old).keep(last, source, target, Path(name))
                os.fsync(target)
            finally:
                os.close(source)
                os.close(target)


def _inside(directory: int, folder: str) -> int:
    inner = open_directory(folder, directory)
    os.close(directory)
    return inner


def _made(directory: int, folder: str) -> int:
    try:
        os.mkdir(folder, dir_fd=directory)
        os.fsync(directory)
    except FileExistsError:
        pass
    return _inside(directory, folder)


@frozen(eq=False)
class _Keeping:
    step: Step
    old: Path

    def keep(self, last: str, source: int, target: int, name: Path) -> None:
        """Gives what is called `last` in `source` that name in `target` too. name: as from the top, for messages."""
        self.step("create", self.old / name)
        found = os.stat(last, dir_fd=source, follow_symlinks=False)
        try:
            if stat.S_ISDIR(found.st_mode):
                self._keep_folder(last, source, target, name)
            else:
                os.link(last, last, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except FileExistsError:
            raise OutputError(Problem(_TAKEN, str(self.old / name))) from None
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise OutputError(Problem(_ELSEWHERE, str(self.old / name))) from None
            if error.errno not in _NO_LINKS or stat.S_ISDIR(found.st_mode):
                raise
            self._copy(last, source, target, name, found)

    def _keep_folder(self, last: str, source: int, target: int, name: Path) -> None:
        os.mkdir(last, dir_fd=target)
        inner, made = open_directory(last, source), open_directory(last, target)
        try:
            if os.fstat(inner).st_dev != os.fstat(source).st_dev:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            for entry in sorted(os.listdir(inner)):
                self.keep(entry, inner, made, name / entry)
            _alike(made, os.fstat(inner))
            os.fsync(made)
        finally:
            close_quietly(inner)
            close_quietly(made)

    def _copy(self, last: str, source: int, target: int, name: Path, found: os.stat_result) -> None:
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(last, dir_fd=source), last, dir_fd=target)
            return
        if not stat.S_ISREG(found.st_mode):
            raise OutputError(Problem(_KIND, str(self.old / name)))
        with (
            os.fdopen(open_entry(last, source, os.O_RDONLY), "rb") as theirs,
            os.fdopen(create_file(last, target), "wb") as copy,
        ):
            self.step("write", self.old / name)
            shutil.copyfileobj(theirs, copy, 1 << 20)
            copy.flush()
            _alike(copy.fileno(), os.fstat(theirs.fileno()))
            os.fsync(copy.fileno())


def _alike(made: int, found: os.stat_result) -> None:
    """Gives what is open the mode and the times of another one."""
    os.chmod(made, stat.S_IMODE(found.st_mode))
    os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns))
