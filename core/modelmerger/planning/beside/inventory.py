"""Takes stock of the files of every source: which are copied, which are made anew, and which are left behind."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from modelmerger.inputs.whole_files import same_content
from modelmerger.values.checkpoint import Checkpoint, models_behind
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.layout import FilesBeside

MOST_LISTED = 1_000
"""Files of a source that are listed as left behind; of further ones, how many there are."""
MOST_LOOKED_AT = 10_000
"""Files of a source after which its further folders are listed unseen."""
_Key = tuple[int, int]


def taken_stock(
    files: Mapping[str, bytes | FileIdentity], documents: Collection[str], checkpoints: Sequence[Checkpoint]
) -> FilesBeside:
    """What becomes of the files of all models that are merged, in merges within this one too.

    files: path in the output → what is made anew, or the file that is copied. documents: the names of others that are
    made anew. A file is not left behind where the output has another of the same path and content.
    """
    copied = {name: file for name, file in files.items() if isinstance(file, FileIdentity)}
    made = tuple(sorted({*documents, *(name for name in files if name not in copied)}))
    ours = {_key(file): name for name, file in copied.items()}
    left, origin = dict[str, tuple[str, ...]](), dict[str, str]()
    for directory, (name, read) in _sources(checkpoints).items():
        stock = _Stock(directory, {*map(_key, read), *ours}, copied, made)
        behind = [*left.get(name, ()), *stock.left_in("")]
        if len(behind) > MOST_LISTED:
            behind[MOST_LISTED:] = [f"and {len(behind) - MOST_LISTED:,} more"]
        if behind:
            left[name] = tuple(behind)
        for key in stock.met & ours.keys():
            origin.setdefault(ours[key], name)
    return FilesBeside({name: origin.get(name, "") for name in copied}, made, left)


def _sources(checkpoints: Sequence[Checkpoint]) -> dict[Path, tuple[str, list[FileIdentity]]]:
    """The directory of each model → its name, and the files that are read for it."""
    found: dict[Path, tuple[str, list[FileIdentity]]] = {}
    for checkpoint in models_behind(checkpoints):
        if checkpoint.donor.directory is not None:
            _, read = found.setdefault(checkpoint.donor.directory, (checkpoint.name, []))
            read += checkpoint.files
    return found


def _key(file: FileIdentity) -> _Key:
    return file.device, file.inode


@frozen(eq=False, repr=False)
class _Stock:
    """The files of one source."""

    root: Path
    taken: Collection[_Key]
    """The files, of any source, that are copied or read as weights."""
    copied: Mapping[str, FileIdentity]
    made: Collection[str]
    met: set[_Key] = field(factory=set, init=False)
    """The taken files that were found here."""
    looked_at: list[str] = field(factory=list, init=False)
    kept: list[str] = field(factory=list, init=False)
    """Those of what was looked at that are not left behind."""

    def left_in(self, folder: str) -> list[str]:
        """What is left behind of a folder, sorted; a folder of which all is left, as one."""
        left = []
        for entry in self._entries(folder):
            name = f"{folder}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                left += self._left_of(f"{name}/")
            else:
                self.looked_at.append(name)
                (self.kept if self._is_taken(entry, name) else left).append(name)
        return left

    def _left_of(self, folder: str) -> list[str]:
        if folder.startswith(".") or len(self.looked_at) > MOST_LOOKED_AT:
            return [folder]
        before = len(self.kept)
        left = self.left_in(folder)
        return left if len(self.kept) > before else [folder]

    def _entries(self, folder: str) -> "list[os.DirEntry[str]]":
        try:
            return sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
        except OSError:
            return []

    def _is_taken(self, entry: "os.DirEntry[str]", name: str) -> bool:
        try:
            found = entry.stat()
        except OSError:
            return False
        key = found.st_dev, found.st_ino
        if key in self.taken:
            self.met.add(key)
            return True
        return name in self.made or (name in self.copied and same_content(self.root / name, self.copied[name]))
