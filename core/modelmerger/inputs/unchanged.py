"""Whether an input is still the file that the merge was planned with, and what to say where it is not."""

import os

from modelmerger.inputs.regular_files import open_regular, status_of
from modelmerger.values.errors import InputChangedError, InputError, Problem
from modelmerger.values.file_identity import FileIdentity, identify


def recheck(file: FileIdentity) -> None:
    """Raises `InputChangedError` when the path no longer leads to the same file with the same content."""
    try:
        now = os.stat(file.path, follow_symlinks=False)
    except OSError as error:
        raise InputChangedError(changed(file, f"cannot be found any more ({error.strerror})")) from error
    if identify(file.path, now) != file:
        raise InputChangedError(changed(file, _difference(file, identify(file.path, now))))


def reopened(file: FileIdentity) -> int:
    """A descriptor of the file, if it still is what it was. Raises `InputChangedError`."""
    try:
        descriptor = open_regular(file.path)
        now = identify(file.path, status_of(descriptor, file.path))
    except InputError as error:
        raise InputChangedError(changed(file, "cannot be opened any more")) from error
    if now != file:
        os.close(descriptor)
        raise InputChangedError(changed(file, _difference(file, now)))
    return descriptor


def _difference(before: FileIdentity, now: FileIdentity) -> str:
    if before.size != now.size:
        return f"was {before.size:,} bytes when the merge was planned and is {now.size:,} now"
    if (before.device, before.inode) != (now.device, now.inode):
        return "was replaced by another file since the merge was planned"
    return "was written to since the merge was planned"


def changed(file: FileIdentity, what: str) -> Problem:
    """What to say of an input that is not what it was."""
    return Problem(f"{what}. Nothing was published; run the merge again when nobody writes to the input.", file.path)
