"""Models that make a merge with many different steps, and what the folder around the output looks like."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import random_tensors, write_model
from inputs.watching import watched_reads

from tests.faults.stopping import assert_sentences

FEW, MANY = 2_500, 1_500
"""Shard sizes that make two shards, and four."""


both_ways = pytest.mark.parametrize("io", ["buffered", "direct"])
"""For tests of what is read and written: through the page cache, and past it."""


@pytest.fixture(autouse=True)
def whole(power_may_fail: None) -> None:
    """Every step is the real one."""


@pytest.fixture
def io() -> str:
    """The option of that name, in `sharded.config`."""
    return "auto"


@pytest.fixture
def sharded(tmp_path: Path, io: str) -> SimpleNamespace:
    """Two models with a licence and a tokenizer, and `config(shard size, **options)` for a merge of them with one worker."""
    base = random_tensors(0)
    for number, name in enumerate("ab"):
        directory = write_model(tmp_path / name, random_tensors(number + 1, near=base))
        (directory / "LICENSE").write_text(f"the licence of {name}\n")
        (directory / "tokenizer.json").write_text('{"model": {}}')
    output = tmp_path / "merged"

    def config(shard: int = FEW, *, weight: float = 0.5, **options: Any) -> dict[str, Any]:
        return {
            "strategy": "weighted",
            "models": [{"path": str(tmp_path / "a"), "weight": weight}, {"path": str(tmp_path / "b"), "weight": 0.5}],
            "output_path": str(output),
            "options": {"max_shard_size": shard, "low_memory_mode": True, "io": io, **options},
        }

    return SimpleNamespace(folder=tmp_path, output=output, config=config, a=tmp_path / "a", b=tmp_path / "b")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Whether no tensor has been read so far."""
    read: list[str] = []
    monkeypatch.setattr(os, "preadv", watched_reads(lambda: read.append("tensor")))
    return lambda: not read


@pytest.fixture
def refused(command: Callable[..., SimpleNamespace]) -> Callable[..., str]:
    """`refused(status, "merge", path)` runs the command line, wants that exit status and sentences alone, and gives them."""

    def run(status: int, *arguments: object) -> str:
        found = command(*arguments)
        assert found.status == status, found.err
        assert_sentences(found.err)
        return found.err

    return run


@pytest.fixture
def config_file(sharded: SimpleNamespace) -> Callable[..., Path]:
    """Writes `sharded.config(...)` to a file for the command line."""

    def write(*arguments: Any, **options: Any) -> Path:
        path = sharded.folder / "config.json"
        path.write_text(json.dumps(sharded.config(*arguments, **options)))
        return path

    return write
