"""A sink that somebody else wrote: what it fails of is put down to it."""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from modelmerger.output.sink import Sink
from modelmerger.values.errors import MergeError, OutputError, Problem
from modelmerger.values.text import said_by
from modelmerger.values.work.block_record import BlockRecord


@frozen(eq=False)
class GivenSink:
    """Passes everything on. Whatever the sink raises, but `MergeError` and `MemoryError`, becomes an `OutputError`."""

    sink: Sink
    """The one that was given."""

    @property
    def records(self) -> Mapping[tuple[int, int], BlockRecord]:
        """Those of the sink."""
        return self.sink.records

    def open_file(self, file: int) -> int:
        """As the sink does."""
        handle: int = self._ask(self.sink.open_file, file)
        return handle

    def write(self, handle: int, file: int, content: memoryview, offset: int) -> None:
        """As the sink does."""
        self._ask(self.sink.write, handle, file, content, offset)

    def flush(self, handle: int, file: int, offset: int, length: int) -> None:
        """As the sink does."""
        self._ask(self.sink.flush, handle, file, offset, length)

    def close_file(self, handle: int, file: int) -> None:
        """As the sink does."""
        self._ask(self.sink.close_file, handle, file)

    def record(self, file: int, block: int, record: BlockRecord) -> None:
        """As the sink does."""
        self._ask(self.sink.record, file, block, record)

    def _ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except (MergeError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            name = f"{type(self.sink).__name__}.{getattr(method, '__name__', 'a method')}"
            reason = said_by(error).rstrip(". ") or "no reason given"
            raise OutputError(Problem(f"{name} raised {type(error).__name__}: {reason}.", "sink")) from error
