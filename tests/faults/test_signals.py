"""A merge that is interrupted ends soon, says how to go on, and does."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import command_line, directory_state
from modelmerger import MergeConfig, merge, verify

from tests.core.plugging import install
from tests.faults.conftest import MANY
from tests.faults.stopping import assert_sentences, ended, fork, staging_path, wait_until

INTERRUPTS = """
import os, signal
from modelmerger import hookimpl

@hookimpl
def check_compatibility():
    os.kill(os.getpid(), signal.SIGTERM)
    return []
"""


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("sent", "status", "io"), [(signal.SIGINT, 130, "direct"), (signal.SIGTERM, 143, "buffered")])
@pytest.mark.parametrize("overwrite", [False, True], ids=["new output", "overwrite"])
def test_an_interrupted_merge_ends_soon_and_is_resumed(
    sharded: SimpleNamespace, config_file: Callable[..., Path], sent: int, status: int, overwrite: bool
) -> None:
    """A6"""
    if overwrite:
        merge(MergeConfig(**sharded.config(weight=0.7)))
    old = directory_state(sharded.output)
    config = sharded.config(MANY, overwrite=overwrite)
    path, said = config_file(MANY, overwrite=overwrite), sharded.folder / "said"
    child = fork(lambda: slowed_down(path), said)
    wait_for_block(sharded.output)

    os.kill(child, sent)

    assert ended(child) == status
    assert_sentences(said.read_text())
    assert "interrupted" in said.read_text()
    assert "run the same command again" in said.read_text()
    assert directory_state(sharded.output) == old
    assert staging_path(sharded.output).is_dir()
    assert merge(MergeConfig(**config)).bytes_reused > 0
    resumed = directory_state(sharded.output)
    shutil.rmtree(sharded.output)
    merge(MergeConfig(**config))
    assert directory_state(sharded.output) == resumed


def slowed_down(config: Path) -> int:
    """The command line with writes that take a quarter of a second."""
    pwrite = os.pwrite

    def slow(*given: Any) -> int:
        time.sleep(0.25)
        return pwrite(*given)

    os.pwrite = slow  # in this process alone
    return command_line("merge", config)


def wait_for_block(output: Path) -> None:
    """Until the journal holds the header and a block."""
    journal = staging_path(output) / "journal"
    wait_until(lambda: journal.exists() and len(journal.read_bytes().splitlines()) >= 2)


@pytest.mark.parametrize("overwrite", [False, True], ids=["new output", "overwrite"])
def test_an_interrupt_after_the_rename_says_that_the_model_is_there(
    sharded: SimpleNamespace,
    config_file: Callable[..., Path],
    command: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
    overwrite: bool,
) -> None:
    """A6"""
    if overwrite:
        merge(MergeConfig(**sharded.config(MANY, weight=0.7)))
    path = config_file(overwrite=overwrite)
    unlink, journal = os.unlink, staging_path(sharded.output) / "journal"

    def interrupted(name: Any, **where: Any) -> None:
        if name == journal.name and journal.exists():
            os.kill(os.getpid(), signal.SIGTERM)
        unlink(name, **where)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", interrupted)
        found = command("merge", path)

    assert found.status == 143
    assert (
        found.err
        == f"error: interrupted. The merged model is at {sharded.output}; run the same command again to clear up.\n"
    )
    verify(sharded.output)
    again = command("merge", path)
    assert again.status == 0
    assert "was published by an earlier run, which was stopped before it had cleared up" in again.err
    assert not staging_path(sharded.output).exists()


def test_an_interrupt_before_anything_is_written_says_so(
    sharded: SimpleNamespace,
    config_file: Callable[..., Path],
    command: Callable[..., SimpleNamespace],
    distribution: Callable[..., Path],
) -> None:
    """A6"""
    install(distribution, [("plugin", "interrupting", INTERRUPTS)])
    found = command("merge", config_file())

    assert found.status == 143
    assert found.err == "error: interrupted. Nothing was written.\n"
    assert not staging_path(sharded.output).exists()
