"""A search on the command line that is ended, killed, or started twice."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import command_line
from modelmerger_plugins.tune import MergeTuner

from tests.faults.stopping import assert_sentences, ended, fork, wait_until
from tests.plugins.tune.conftest import Make
from tests.plugins.tune.test_tuner import written

pytestmark = pytest.mark.usefixtures("interruptible")


class Search:
    """`modelmerger tune` in a child, which has begun to measure."""

    def __init__(self, config: dict[str, Any], folder: Path, *options: str) -> None:
        self.study, self._said = folder / "out.tune" / "study.jsonl", folder / "said"
        self.command = ["tune", written(config, folder / "c.yaml"), *options]
        self.child = fork(lambda: command_line(*self.command), self._said)
        wait_until(lambda: self.rows() >= 3)

    def rows(self) -> int:
        return self.study.read_bytes().count(b'"kind": "trial"') if self.study.exists() else 0

    def ended(self, sent: int) -> tuple[int, str]:
        os.kill(self.child, sent)
        return ended(self.child), self._said.read_text()


def test_a_search_that_is_terminated_says_how_to_go_on_in_a_line(config: Make, tmp_path: Path) -> None:
    search = Search(config(search={"steps": 5000}), tmp_path)
    status, said = search.ended(signal.SIGTERM)
    assert status == 143
    assert said == (
        f"error: interrupted. What was measured is in {search.study}; run the same command with --resume to go on.\n"
    )
    assert not (tmp_path / "out").exists()


def test_one_that_is_killed_leaves_no_lock_and_goes_on_to_the_same_end(
    config: Make, tmp_path: Path, command: Callable[..., SimpleNamespace]
) -> None:
    given = config(search={"steps": 15})
    search = Search(given, tmp_path)
    assert search.ended(signal.SIGKILL)[0] == -9
    kept = search.study.read_bytes()
    assert 0 < search.rows() < 16, "it was not killed in the middle"
    assert list(search.study.parent.glob(".terms-*"))  # which it had no time to remove
    with search.study.open("ab") as file:
        file.write(b'{"kind": "tri')
    again = command(*search.command)
    assert again.status == 4
    assert "exists already. Give --resume" in again.err
    again = command(*search.command, "--resume")
    assert again.status == 0, again.err
    assert search.study.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    wanted = MergeTuner(given).tune(tmp_path / "whole")
    rows = [json.loads(line) for line in search.study.read_text().splitlines()]
    vectors = [tuple(row["vector"]) for row in rows if row.get("kind") == "trial"]
    assert vectors == [trial.vector for trial in wanted.trials]
    assert sorted(path.name for path in search.study.parent.iterdir()) == ["study.jsonl", "tune.html", "tuned.yaml"]


def test_two_of_one_study_exclude_each_other(
    config: Make, tmp_path: Path, command: Callable[..., SimpleNamespace]
) -> None:
    search = Search(config(search={"steps": 5000}), tmp_path)
    other = command(*search.command, "--resume")
    assert other.status == 4
    assert_sentences(other.err)
    assert f"{search.study}: is being written by another search at this moment" in other.err
    rows, until = search.rows(), time.monotonic() + 30
    while search.rows() == rows and time.monotonic() < until:
        time.sleep(0.02)
    assert search.rows() > rows  # the first goes on
    assert search.ended(signal.SIGTERM)[0] == 143


def test_an_interrupt_gives_the_best_so_far(config: Make, tmp_path: Path) -> None:
    search = Search(config(search={"steps": 5000}), tmp_path)
    status, said = search.ended(signal.SIGINT)
    assert (status, "error" in said) == (0, False)
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert "--resume goes on with it" in (tmp_path / "out.tune" / "tuned.yaml").read_text()
