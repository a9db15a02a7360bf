"""The token of a run, which a staging directory holds while the run lasts: no worker of another run writes there."""

import os

from modelmerger.output.entries import create_file, discard, open_entry, write_all
from modelmerger.values.errors import OutputError, Problem

NAME = "run"
"""What the file is called in the staging directory."""
_LONGEST = 64


def write_token(directory: int, token: str) -> None:
    """Puts the token in place of that of an earlier run. directory: open, and locked by this process."""
    discard(NAME, directory)
    descriptor = create_file(NAME, directory, os.O_WRONLY)
    try:
        write_all(descriptor, token.encode())
    finally:
        os.close(descriptor)


def check_token(directory: int, token: str, path: str) -> None:
    """Raises `OutputError` where the run that has this token is over. path: of the directory, for the message."""
    if read_token(directory) != token:
        raise OutputError(Problem("is not of this run any more. The worker that wanted to write there stops.", path))


def read_token(directory: int) -> str:
    """That of the run that goes on in an open directory; empty where there is none."""
    try:
        descriptor = open_entry(NAME, directory, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _LONGEST).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
