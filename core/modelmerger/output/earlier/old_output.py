"""The old output, once the new one has its name: removed but for what no merge wrote and the new one does not hold."""

import contextlib
import itertools
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from modelmerger.output.earlier.foreign import unlisted
from modelmerger.output.entries import discard, is_directory, open_directory
from modelmerger.output.manifest import FILE, read_manifest
from modelmerger.output.system import rename_new
from modelmerger.values.errors import InputError, Problem


def remove_old_output(old: Path, target: Path) -> list[Problem]:
    """Removes what was in `target` before, and now lies at `old`.

    What came into it while it was exchanged is moved beside the target, and a warning says where. The manifest is
    removed last, so that a removal that was killed goes on. Raises `OSError`.
    """
    manifest = _manifest(old)
    removal = _Removal(frozenset(unlisted(old, manifest)), frozenset(_manifest(target).get("extra", [])))
    directory = open_directory(old)
    try:
        removal.remove(directory, "", target)
        if set(os.listdir(directory)) <= {FILE}:
            discard(FILE, directory)
            old.rmdir()
            return []
    finally:
        os.close(directory)
    message = "holds what came into the old output while it was overwritten. Look through it, then remove it."
    return [Problem(message, str(_moved(old, target)), severity="warning")]


def _manifest(directory: Path) -> Mapping[str, Any]:
    """The manifest of a directory; one that lists nothing where there is none (any more)."""
    try:
        return read_manifest(directory)
    except InputError:
        return {"files": {}, "companions": []}


@frozen
class _Removal:
    theirs: Collection[str]
    """Names of what no merge wrote."""
    kept: Collection[str]
    """Those of it that the new output has too."""

    def remove(self, directory: int, prefix: str, new: Path) -> None:
        """Removes what is in an open directory and may be. new: its counterpart in the new output."""
        for entry in sorted(os.listdir(directory)):
            name = prefix + entry
            if name in self.theirs:
                if name in self.kept:
                    _remove_kept(entry, directory, new / entry)
            elif is_directory(entry, directory):
                with _inside(entry, directory) as inner:
                    self.remove(inner, f"{name}/", new / entry)
            elif name != FILE:
                os.unlink(entry, dir_fd=directory)


def _remove_kept(entry: str, directory: int, new: Path) -> None:
    """Removes an entry that the new output has too, and nothing that it has not."""
    try:
        ours, theirs = os.stat(entry, dir_fd=directory, follow_symlinks=False), new.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(ours.st_mode) and stat.S_ISDIR(theirs.st_mode):
        with _inside(entry, directory) as inner:
            for further in sorted(os.listdir(inner)):
                _remove_kept(further, inner, new / further)
    elif os.path.samestat(ours, theirs) or _copied(ours) == _copied(theirs):
        os.unlink(entry, dir_fd=directory)


def _copied(found: os.stat_result) -> tuple[int, ...]:
    """What a copy has in common with its original; a link's times are not copied."""
    times = () if stat.S_ISLNK(found.st_mode) else (found.st_mtime_ns,)
    return stat.S_IFMT(found.st_mode), found.st_size, *times


@contextlib.contextmanager
def _inside(folder: str, directory: int) -> Iterator[int]:
    """A descriptor of a folder, which is removed afterwards if it is empty."""
    inner = open_directory(folder, directory)
    try:
        yield inner
    finally:
        os.close(inner)
    with contextlib.suppress(OSError):
        os.rmdir(folder, dir_fd=directory)


def _moved(old: Path, target: Path) -> Path:
    """Gives what is left a name beside the target that nothing has."""
    for number in itertools.count(1):
        saved = target.with_name(f"{target.name}.left" + (f"-{number}" if number > 1 else ""))
        with contextlib.suppress(FileExistsError):
            rename_new(old, saved)
            break
    return saved
