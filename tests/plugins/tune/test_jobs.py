"""Several vectors at a time: the same study as one after the other, and processes that end with the search."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from modelmerger import ConfigError, MergeError
from modelmerger_plugins.tune import MergeTuner

from tests.faults.stopping import wait_until
from tests.plugins.tune.conftest import NAMES, Make
from tests.plugins.tune.test_tuner import written

pytest.importorskip("optuna")


def children(process: int) -> list[str]:
    """The numbers of the processes that a process started."""
    command = ["ps", "--ppid", str(process), "-o", "pid=,args="]
    rows = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [row.split()[0] for row in rows if "live.worker" in row]


def trials_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "study.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows if row.get("kind") == "trial"]


def test_two_at_a_time_try_the_same_vectors_as_one(config: Make, tmp_path: Path) -> None:
    given = config(objective=["loss", {"take": "mean"}], search={"steps": 4})
    one = MergeTuner(given).tune(tmp_path / "one")
    two = MergeTuner(given).tune(tmp_path / "two", jobs=2)
    rows = [trials_of(tmp_path / f"{name}.tune") for name in ("one", "two")]
    assert [row["vector"] for row in rows[1]] == [row["vector"] for row in rows[0]]
    for mine, other in zip(*rows, strict=True):
        assert mine["losses"] == pytest.approx(other["losses"], rel=1e-6)
    assert two.best.number == one.best.number


def test_a_process_that_is_killed_is_said_and_the_others_end(config: Make, tmp_path: Path) -> None:
    workers: list[int] = []

    def killing(done: int, _: int, __: float) -> None:
        if done == 1:
            workers.extend(map(int, children(os.getpid())))
            for worker in workers:
                os.kill(worker, signal.SIGKILL)

    with pytest.raises(MergeError, match="a process that measures ended with status -9"):
        MergeTuner(config(search={"method": "tpe", "steps": 4})).tune(jobs=2, progress=killing)
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert len(trials_of(tmp_path / "out.tune")) == 1


def test_models_in_memory_and_functions_stay_in_this_process(config: Make) -> None:
    with pytest.raises(ConfigError, match="in this process alone"):
        MergeTuner(config(), objective=lambda _, __: 0.0).tune(jobs=2)


def test_jobs_that_have_no_effect_are_noted(config: Make) -> None:
    report = MergeTuner(config()).tune(jobs=2)
    assert report.method == "gradient"
    assert "jobs have no effect: gradient goes one step after the other" in report.notes


def test_processes_end_when_the_search_is_terminated(config: Make, tmp_path: Path) -> None:
    given = written(config(search={"method": "tpe", "steps": 500}), tmp_path / "c.yaml")
    command = [sys.executable, "-m", "modelmerger", "tune", given, "--jobs", "2"]
    paths = os.pathsep.join(sys.path)
    search = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})
    study = tmp_path / "out.tune" / "study.jsonl"
    wait_until(lambda: search.poll() is not None or (study.exists() and study.read_bytes().count(b'"trial"') >= 3))
    workers = [int(line) for line in children(search.pid)]
    assert len(workers) == 2
    search.send_signal(signal.SIGTERM)
    _, said = search.communicate(timeout=60)
    assert search.returncode == 143
    assert said == (
        f"error: interrupted. What was measured is in {study}; run the same command with --resume to go on.\n"
    )
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert set(NAMES) <= set(trials_of(study.parent)[0]["losses"])
