"""Where what a merge is a sum of is kept while a search runs, and what killed searches left of it."""

import shutil
import tempfile
from pathlib import Path

_PREFIX = ".terms-"


def new_place(folder: Path | None) -> Path:
    """A new folder for files.

    folder: of a study that this process has to itself, so that other such places in it are what a killed search left,
    and are removed; None for a place among temporary files.
    """
    for left in folder.glob(f"{_PREFIX}*") if folder is not None else ():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
