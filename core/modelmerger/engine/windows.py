"""The memory in which a worker makes the output, window by window, and how it goes from there to the writer."""

from concurrent.futures import Executor, Future
from types import TracebackType
from typing import TYPE_CHECKING, Self

import torch

from modelmerger.engine.arithmetic import Workspace
from modelmerger.output.sink import Writer
from modelmerger.planning.cost import BEHIND

if TYPE_CHECKING:
    from torch import Tensor


class Windows:
    """The windows of one block, one behind the other. When the context ends, all are written, or an error is raised.

    begin: the offset of the first one in its file. behind: what writes a window while the next one is made; None: each
    is written before the next one is made, in the same memory.
    """

    def __init__(
        self, writer: Writer, handle: int, file: int, begin: int, workspace: Workspace, behind: Executor | None
    ) -> None:
        self._writer, self._handle, self._file = writer, handle, file
        self._offset = begin
        self._workspace = workspace
        self._behind = behind
        self._writing: list[Future[None]] = []
        self._number = 0
        self._window = memoryview(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        failed = [future.exception() for future in self._writing]  # waits for each: the file is closed next
        for failure in failed if error is None else ():
            if failure is not None:
                raise failure

    def next(self, length: int) -> tuple[memoryview, "Tensor"]:
        """Memory for so many bytes, as bytes and as a vector of them; waits until it may be written to again."""
        while len(self._writing) > BEHIND:
            self._writing.pop(0).result()
        purpose = f"window {self._number}"
        self._number = (self._number + 1) % (BEHIND + 1) if self._behind is not None else 0
        self._window = self._workspace.memory(purpose, length)
        return self._window, self._workspace.host(purpose, length, torch.uint8)

    def write(self) -> None:
        """Has the window written that `next` gave last."""
        arguments = self._handle, self._file, self._window, self._offset
        if self._behind is None:
            self._writer.write(*arguments)
        else:
            self._writing.append(self._behind.submit(self._writer.write, *arguments))
        self._offset += len(self._window)
