"""Blocks of another size, for small files of many blocks."""

import sys

import modelmerger.engine.work.executing
import modelmerger.worker  # noqa: F401 (imported here, so that no module is first imported with blocks of another size)
import pytest
import torch
from modelmerger import Layout, MemorySink


def set_block(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Blocks of output files of this size in every module."""
    for name, module in list(sys.modules.items()):
        if name.startswith("modelmerger.") and hasattr(module, "BLOCK"):
            monkeypatch.setattr(module, "BLOCK", size)


class CountingSink(MemorySink):
    """Counts the bytes that it is given."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.bytes_written = 0

    def write(self, handle: int, file: int, content: memoryview, offset: int) -> None:
        self.bytes_written += len(content)
        super().write(handle, file, content, offset)


def contents(sink: MemorySink) -> dict[str, bytes]:
    """The bytes of its tensors by name."""
    return {name: tensor.view(-1).view(torch.uint8).numpy().tobytes() for name, tensor in sink.tensors.items()}
