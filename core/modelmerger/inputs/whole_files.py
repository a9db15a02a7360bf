"""Whole files that are copied or compared, in pieces, so that memory does not depend on their size."""

import os
from collections.abc import Iterator
from pathlib import Path

from modelmerger.inputs.regular_files import open_regular
from modelmerger.inputs.unchanged import changed, recheck, reopened
from modelmerger.values.errors import InputChangedError, InputError, MergeError, Problem
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.layout import BLOCK

_PIECE = 1 << 20


def content_in_blocks(file: FileIdentity) -> Iterator[bytes]:
    """The content of a file, block by block, the last one shorter.

    Raises `InputChangedError` where it is not what it was when it was identified, or stops being that meanwhile.
    """
    with os.fdopen(reopened(file), "rb") as opened:
        left = file.size
        while left:
            try:
                block = opened.read(min(BLOCK, left))
            except OSError as error:
                raise InputError(Problem(f"cannot be read: {error.strerror}.", file.path)) from error
            if not block:
                raise InputChangedError(changed(file, "is shorter than when the merge was planned"))
            left -= len(block)
            yield block
    recheck(file)


def same_content(path: Path, file: FileIdentity) -> bool:
    """Whether the file at a path holds what another one does, byte for byte. False also where one cannot be read."""
    try:
        with os.fdopen(open_regular(os.path.realpath(path)), "rb") as ours, os.fdopen(reopened(file), "rb") as theirs:
            if os.fstat(ours.fileno()).st_size != file.size:
                return False
            while (piece := ours.read(_PIECE)) == theirs.read(_PIECE):
                if not piece:
                    return True
    except (OSError, MergeError):
        pass
    return False
