"""Several vectors at a time: the same study as one after the other, and processes that end with the search."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import command_line
from modelmerger import ConfigError, InputError, MergeError
from modelmerger_plugins.tune import MergeTuner
from modelmerger_plugins.tune.live import jobs, worker

from tests.faults.stopping import ended, fork, wait_until
from tests.plugins.tune.conftest import Make
from tests.plugins.tune.test_tuner import written

pytest.importorskip("optuna")


def children(process: int) -> list[int]:
    """The numbers of the processes that measure for a process."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = place.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == process and b"live.worker" in place.joinpath("cmdline").read_bytes():
                found.append(int(place.name))
    return found


def trials_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "study.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows if row.get("kind") == "trial"]


def forked() -> Any:
    """A process that measures, forked from this one, which has imported what it needs; the last test starts real ones."""
    (asked, ask), (told, tell) = os.pipe(), os.pipe()
    parent = os.getpid()

    def run() -> None:
        os.dup2(asked, 0)
        os.dup2(tell, 1)
        worker.main(parent)

    child = fork(run)
    os.close(asked)
    os.close(tell)
    return SimpleNamespace(
        stdin=os.fdopen(ask, "w", encoding="utf-8"),
        stdout=os.fdopen(told, encoding="utf-8"),
        kill=lambda: os.kill(child, signal.SIGKILL),
        wait=lambda: ended(child),
    )


def test_two_at_a_time_try_the_same_vectors_as_one(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_started", forked)
    given = config(objective=["loss", {"take": "mean"}], search={"steps": 4})
    one = MergeTuner(given).tune(tmp_path / "one")
    two = MergeTuner(given).tune(tmp_path / "two", jobs=2)
    rows = [trials_of(tmp_path / f"{name}.tune") for name in ("one", "two")]
    assert [row["vector"] for row in rows[1]] == [row["vector"] for row in rows[0]]
    for mine, other in zip(*rows, strict=True):
        assert mine["losses"] == pytest.approx(other["losses"], rel=1e-6)
    assert two.best.number == one.best.number


@pytest.mark.parametrize(
    ("program", "kind", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", MergeError, "a process that measures ended with status -9"),
        (
            'import sys; sys.stdin.readline(); print(\'{"failed": ["it is gone"], "kind": "InputError"}\', flush=True)',
            InputError,
            "it is gone",
        ),
    ],
)
def test_a_process_that_fails_is_said_and_the_others_end(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, kind: type[MergeError], said: str
) -> None:
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        lines = "import sys\nfor _ in sys.stdin: pass" if started else program
        started.append(subprocess.Popen([sys.executable, "-c", lines], **pipes))
        return started[-1]

    monkeypatch.setattr(jobs, "_started", start)
    with pytest.raises(kind, match=said):
        MergeTuner(config(search={"method": "tpe", "steps": 4})).tune(jobs=2)
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)
    assert trials_of(tmp_path / "out.tune") == []


def test_models_in_memory_and_functions_stay_in_this_process(config: Make) -> None:
    with pytest.raises(ConfigError, match="in this process alone"):
        MergeTuner(config(), objective=lambda _, __: 0.0).tune(jobs=2)


def test_jobs_that_have_no_effect_are_noted(config: Make) -> None:
    report = MergeTuner(config()).tune(jobs=2)
    assert report.method == "gradient"
    assert "jobs have no effect: gradient goes one step after the other" in report.notes


@pytest.mark.usefixtures("interruptible")
def test_processes_end_when_the_search_is_terminated(config: Make, tmp_path: Path) -> None:
    given = written(config(search={"method": "tpe", "steps": 500}), tmp_path / "c.yaml")
    search = fork(lambda: command_line("tune", given, "--jobs", "2"), tmp_path / "said")
    study = tmp_path / "out.tune" / "study.jsonl"
    wait_until(lambda: study.exists() and study.read_bytes().count(b'"trial"') >= 3)
    workers = children(search)
    assert len(workers) == 2
    os.kill(search, signal.SIGTERM)
    assert ended(search) == 143
    said = (tmp_path / "said").read_text().splitlines()[-1]
    assert said == (
        f"error: interrupted. What was measured is in {study}; run the same command with --resume to go on."
    )
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
