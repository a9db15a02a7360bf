"""Where merged weights go: to a staged directory, to memory, into a live module."""

from collections.abc import Mapping
from typing import Protocol

from modelmerger.values.work.block_record import BlockRecord


class Writer(Protocol):
    """Takes the bytes of the layout's files, at their offsets and in any order. Safe from several threads.

    What cannot be written is an `OutputError`, with which the merge ends; any other exception of a sink that is given
    to `merge_tensors`, but a `MergeError` or a `MemoryError`, becomes one that names it.
    """

    def open_file(self, file: int) -> int:
        """A handle of a file of the layout, for the other methods."""

    def write(self, handle: int, file: int, content: memoryview, offset: int) -> None:
        """Takes bytes of a file, from an offset on. The memory is used again afterwards."""

    def flush(self, handle: int, file: int, offset: int, length: int) -> None:
        """Hears that a block of a file is whole, so that it may be written back."""

    def close_file(self, handle: int, file: int) -> None:
        """Ends what `open_file` began. A write that failed late may be said here."""


class Sink(Writer, Protocol):
    """A writer that remembers which blocks are done."""

    @property
    def records(self) -> Mapping[tuple[int, int], BlockRecord]:
        """The blocks that are done, by file and block, and are not made again.

        Read before the work begins, and at its end, when it must hold every block.
        """

    def record(self, file: int, block: int, record: BlockRecord) -> None:
        """Notes that a block is done. Called by one thread at a time."""
