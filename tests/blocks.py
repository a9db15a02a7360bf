"""Blocks of another size, for small files of many blocks."""

import sys

import modelmerger.engine.work.executing
import modelmerger.worker  # noqa: F401 (imported here, so that no module is first imported with blocks of another size)
import pytest


def set_block(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Blocks of output files of this size in every module."""
    for name, module in list(sys.modules.items()):
        if name.startswith("modelmerger.") and hasattr(module, "BLOCK"):
            monkeypatch.setattr(module, "BLOCK", size)
