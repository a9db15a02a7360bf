"""The folder that an output lies in: it is made where it is missing, if the folder around it is there."""

import os
from pathlib import Path

from modelmerger.output.entries import sync_file
from modelmerger.output.steps import Step
from modelmerger.values.errors import OutputError, Problem


def staging_path(target: Path) -> Path:
    """Where a merge to this target is staged, beside it."""
    return target.parent / f".{target.name}.modelmerger"


def standing_folder(target: Path) -> Path:
    """The folder of an output if it is there, else the one in which it would be made."""
    parent = target.parent
    return parent.parent if _may_be_made(parent) else parent


def check_parent(target: Path) -> None:
    """Raises `OutputError` where the output's folder is missing and cannot be made, or cannot be written to."""
    folder = standing_folder(target)
    if not folder.is_dir():
        raise OutputError(Problem(f"the folder {folder} does not exist. Make it first.", str(target)))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(Problem(f"the folder {folder} cannot be written to. Change its permissions.", str(target)))


def make_parent(target: Path, step: Step) -> None:
    """Makes the output's folder where it is missing, to stay there after a power cut. Raises `OSError`."""
    parent = target.parent
    if not _may_be_made(parent):
        return
    step("create", parent)
    parent.mkdir(exist_ok=True)
    step("fsync", parent.parent)
    sync_file(parent.parent)


def _may_be_made(folder: Path) -> bool:
    """Whether nothing has its name. The home directory of a user who is unknown here is no folder to make."""
    return not os.path.lexists(folder) and not folder.name.startswith("~")
