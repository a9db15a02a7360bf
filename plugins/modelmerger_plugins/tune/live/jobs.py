"""Several vectors at a time, each in a process of its own, which has the models open for itself."""

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import modelmerger
from modelmerger import ConfigError, MergeError, Problem, recalling

from modelmerger_plugins.tune.live.benches import Bench, Drop, Here, Measure, Measured, Vector
from modelmerger_plugins.tune.opened import Opened
from modelmerger_plugins.tune.texts import Lines, Texts


@contextlib.contextmanager
def bench(opened: Opened, texts: Texts, jobs: int, measure: Measure) -> Iterator[Bench]:
    """Where vectors are measured on the lines to tune on. measure: does so in this process. Raises `ConfigError`."""
    if jobs == 1:
        with recalling():
            yield Here(measure)
    else:
        with Jobs(opened, texts.tune, texts.fewest, jobs) as processes:
            yield processes


class Jobs:
    """So many processes, which start when there is something to measure, and end with the context."""

    def __init__(self, opened: Opened, lines: Lines, fewest: int, count: int) -> None:
        """lines: what is measured on. fewest: of each split to tune on. Raises `ConfigError`."""
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        order = {"config": opened.read.whole, "fewest": fewest, "texts": lines, "threads": threads, "jobs": count}
        try:
            self._order = json.loads(json.dumps(order))
        except (TypeError, ValueError) as error:
            message = "holds what no other process can open, such as models in memory. Leave the jobs out"
            raise ConfigError(Problem(message, "config")) from error
        self._count = count
        self._processes: list[subprocess.Popen[str]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory()
        self._threads = ThreadPoolExecutor(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what it was not told any more
                    if stream is not None:
                        stream.close()
        self._folder.cleanup()

    def measure(self, asked: Sequence[tuple[Vector, Drop]]) -> Iterator[Measured]:
        """What each of them comes to. Raises what a process raises."""
        if asked and not self._processes:
            self._start()
        waiting = [self._threads.submit(self._one, vector, drop) for vector, drop in asked]
        return (one.result() for one in waiting)

    def _start(self) -> None:
        for _ in range(self._count):
            self._processes.append(_started())
        for number, process in enumerate(self._processes):
            folder = Path(self._folder.name) / str(number)
            folder.mkdir()
            _ask(process, {**self._order, "folder": str(folder)})
            self._idle.put(process)

    def _one(self, vector: Vector, drop: Drop) -> Measured:
        process = self._idle.get()
        try:
            told = _ask(process, {"vector": list(vector)}, answered=True)
            while "part" in told:
                told = _ask(process, {"drop": drop(told["part"], told["losses"])}, answered=True)
            return Measured(**told["measured"])
        finally:
            self._idle.put(process)


def _started() -> "subprocess.Popen[str]":
    """The interpreter finds the modules where this one does."""
    module = f"{__package__}.worker"
    path = [*map(os.path.abspath, sys.path)]
    program = f"import sys; sys.path[:] = {path!r}; from {module} import main; main({os.getpid()})"
    return subprocess.Popen(  # noqa: S603 (this interpreter, and a text of our own)
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        encoding="utf-8",
    )


def _ask(process: "subprocess.Popen[str]", what: Mapping[str, Any], *, answered: bool = False) -> dict[str, Any]:
    """Sends a line, and returns what the answer says. Raises `MergeError`."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process has no pipes")
    try:
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()
        line = process.stdout.readline() if answered else "{}"
    except BrokenPipeError:
        line = process.stdout.readline()
    if not line:
        raise MergeError(
            f"a process that measures ended with status {process.wait()}. Is there memory for so many jobs?"
        )
    told: dict[str, Any] = json.loads(line)
    if "failed" in told:
        kind = getattr(modelmerger, told["kind"])
        raise kind(*told["failed"])
    return told
