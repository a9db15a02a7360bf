"""Which way bytes go between the disk and a merge: through the page cache or past it."""

import contextlib
from typing import Literal

from modelmerger.inputs.direct.open_file import OpenFile
from modelmerger.inputs.regular_files import open_regular
from modelmerger.values.errors import InputError
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.options.core import Io

Way = Literal["cached", "direct", "buffered"]
""""cached": from the page cache, where it is; "direct": past it; "buffered": through it."""
PROBES = 8
"""Places in a file that are looked for in the page cache."""


def writes_past_cache(io: Io, read: int, written: int, available: int) -> bool:
    """Whether output is written past the page cache. read, written: bytes of all files. available: of memory, with the
    page cache, which can be given up; 0 where that is not known.

    Where all fits in memory, whoever loads the model next finds it there.
    """
    return io == "direct" or (io == "auto" and 0 < available < read + written)


def way_of(file: FileIdentity, io: Io) -> Way:
    """Which way most of a file would be read now."""
    if io == "buffered" or file.size == 0:
        return "buffered"
    with contextlib.suppress(InputError, OSError):
        opened = OpenFile(open_regular(file.path))
        try:
            step = -(-file.size // PROBES)
            if io == "auto" and not opened.tells_what_is_cached:
                return "buffered"
            if io == "auto" and opened.is_cached(0, file.size, step):
                return "cached"
            return "direct" if opened.can_be_read_past else "buffered"
        finally:
            opened.retire()
    return "buffered"
