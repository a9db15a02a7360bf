"""The files of a staged tree, as whoever writes to them sees them: by descriptor, in this process or in another."""

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from modelmerger.output.digests import differing
from modelmerger.output.direct import DIRECT, write_past_cache
from modelmerger.output.entries import close_quietly, open_directory, open_entry, write_all_at
from modelmerger.output.run_token import check_token
from modelmerger.output.steps import Step, no_step
from modelmerger.output.system import start_writeback
from modelmerger.output.system_errors import output_error, output_errors
from modelmerger.values.layout import BLOCK, Layout
from modelmerger.values.work.block_record import BlockRecord

CACHED = 1 << 18
"""Bytes that are written to the page cache at a time. For larger pieces the system looks for larger pages, and compacts
the memory to have them, which can take longer than the copying.
"""


class StagedFiles:
    """Writes to the files of a layout in a tree that is there. Raises `OutputError` for what the system says.

    direct: past the page cache, where the file system lets it.
    """

    def __init__(self, tree: Path, layout: Layout, step: Step = no_step, *, direct: bool = False) -> None:
        self._tree = tree
        self._tree_fd = -1
        self._names: Sequence[str] = [file.name for file in layout.files]
        self._paths: Sequence[Path] = [tree / name for name in self._names]
        self._step = step
        self._direct = direct and DIRECT != 0

    def open_file(self, file: int) -> int:
        """A descriptor of a file of the layout, for `write`."""
        path = self._paths[file]
        with output_errors(path):
            if self._direct:
                try:
                    return open_entry(self._names[file], self._tree_fd, os.O_WRONLY | DIRECT)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    self._direct = False  # the file system has no such thing
            return open_entry(self._names[file], self._tree_fd, os.O_WRONLY)

    def write(self, handle: int, file: int, content: memoryview, offset: int) -> None:
        """Writes to a file of the layout, from an offset in bytes."""
        path = self._paths[file]
        try:  # every window comes through here, so without the generator of `output_errors`
            self._step("write", path)
            if self._direct:
                write_past_cache(handle, content, offset)
            else:
                write_all_at(handle, content, offset, CACHED)
        except OSError as error:
            raise output_error(path, error) from error

    def flush(self, handle: int, _: int, offset: int, length: int) -> None:
        """Asks for the writeback of a finished block."""
        if not self._direct:
            start_writeback(handle, offset, length)

    def close_file(self, handle: int, file: int) -> None:
        """Closes what `open_file` opened. A write that failed late is said here by some file systems."""
        with output_errors(self._paths[file]):
            os.close(handle)

    def is_written(self, file: int, block: int, record: BlockRecord) -> bool:
        """Whether a block of a file has the digests of its record, as this process reads it."""
        with output_errors(self._paths[file]):
            descriptor = open_entry(self._names[file], self._tree_fd, os.O_RDONLY)
            try:
                return not any(True for _ in differing(descriptor, block * BLOCK, record.pieces))
            finally:
                os.close(descriptor)


class SharedFiles(StagedFiles):
    """The files of a tree that another process has staged, for as long as the context lasts and its run goes on.

    token: of the run. It is looked at before each file is opened; the files themselves are opened in the directory that
    was there at the beginning, so that a later run's are out of reach.
    """

    def __init__(self, tree: Path, layout: Layout, token: str, *, direct: bool = False) -> None:
        super().__init__(tree, layout, direct=direct)
        self._token = token
        self._root_fd = -1
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as closing, output_errors(self._tree):
            self._root_fd = open_directory(self._tree.parent)
            closing.callback(close_quietly, self._root_fd)
            self._tree_fd = open_directory(self._tree.name, self._root_fd)
            closing.callback(close_quietly, self._tree_fd)
            check_token(self._root_fd, self._token, str(self._tree.parent))
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def open_file(self, file: int) -> int:
        """A descriptor of a file of the layout. Raises `OutputError` once the run is over."""
        check_token(self._root_fd, self._token, str(self._tree.parent))
        return super().open_file(file)

    def close_file(self, handle: int, file: int) -> None:
        """Closes it once what was written is on the storage: who asked for it may be on another machine."""
        try:
            with output_errors(self._paths[file]):
                os.fdatasync(handle)
        finally:
            super().close_file(handle, file)
