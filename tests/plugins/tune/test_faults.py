"""A search on the command line that is ended, killed, or started twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from modelmerger_plugins.tune import MergeTuner

from tests.faults.stopping import assert_sentences, wait_until
from tests.plugins.tune.conftest import Make
from tests.plugins.tune.test_tuner import written


class Search:
    """`modelmerger tune` in a process of its own, which has begun to measure."""

    def __init__(self, config: dict[str, Any], folder: Path, *options: str) -> None:
        self.study = folder / "out.tune" / "study.jsonl"
        self.command = [sys.executable, "-m", "modelmerger", "tune", written(config, folder / "c.yaml"), *options]
        self.process = self._started()
        wait_until(lambda: self.process.poll() is not None or self.rows() >= 3)

    def _started(self) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command, text=True, env=environment, **pipes)

    def rows(self) -> int:
        return self.study.read_bytes().count(b'"kind": "trial"') if self.study.exists() else 0

    def ended(self, sent: int | None = None) -> tuple[int, str, str]:
        if sent is not None:
            self.process.send_signal(sent)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def again(self, *options: str) -> tuple[int, str, str]:
        self.command += options
        self.process = self._started()
        return self.ended()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_search_that_is_terminated_says_how_to_go_on_in_a_line(config: Make, tmp_path: Path, as_json: bool) -> None:
    search = Search(config(search={"steps": 5000}), tmp_path, *(["--json"] if as_json else []))
    status, out, err = search.ended(signal.SIGTERM)
    assert status == 143
    said = f"interrupted. What was measured is in {search.study}; run the same command with --resume to go on."
    assert err == f"error: {said}\n"
    assert (said in json.loads(out)["problems"][0]["message"]) if as_json else out == ""
    assert not (tmp_path / "out").exists()


def test_one_that_is_killed_leaves_no_lock_and_goes_on_to_the_same_end(config: Make, tmp_path: Path) -> None:
    given = config(search={"steps": 60})
    search = Search(given, tmp_path)
    assert search.ended(signal.SIGKILL)[0] == -9
    kept = search.study.read_bytes()
    assert 0 < search.rows() < 61, "it was not killed in the middle"
    with search.study.open("ab") as file:
        file.write(b'{"kind": "tri')
    status, _, err = search.again()
    assert status == 4
    assert "exists already. Give --resume" in err
    status, _, err = search.again("--resume")
    assert status == 0, err
    whole = kept[: kept.rindex(b"\n") + 1]
    assert search.study.read_bytes().startswith(whole)
    wanted = MergeTuner(given).tune(tmp_path / "whole")
    rows = [json.loads(line) for line in search.study.read_text().splitlines()]
    vectors = [tuple(row["vector"]) for row in rows if row.get("kind") == "trial"]
    assert vectors == [trial.vector for trial in wanted.trials]


def test_two_of_one_study_exclude_each_other(config: Make, tmp_path: Path) -> None:
    search = Search(config(search={"steps": 5000}), tmp_path)
    other = subprocess.run(
        [*search.command, "--resume"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert other.returncode == 4
    assert_sentences(other.stderr)
    assert f"{search.study}: is being written by another search at this moment" in other.stderr
    rows = search.rows()
    until = time.monotonic() + 30
    while search.rows() == rows and time.monotonic() < until:
        time.sleep(0.02)
    assert search.rows() > rows  # the first goes on
    assert search.ended(signal.SIGTERM)[0] == 143


def test_an_interrupt_gives_the_best_so_far(config: Make, tmp_path: Path) -> None:
    search = Search(config(search={"steps": 5000}), tmp_path)
    status, out, err = search.ended(signal.SIGINT)
    assert (status, err) == (0, "")
    assert "--resume goes on with it" in out
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert (tmp_path / "out.tune" / "tuned.yaml").exists()
