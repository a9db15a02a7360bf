"""A forked child under strace: what the system sees, and errors and signals that it makes up."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import define, field

from tests.faults.stopping import ended, fork

PR_SET_PTRACER, ANYBODY = 0x59616D61, ctypes.c_ulong(-1)


@define
class Traced:
    """status: how the child ended. log: what strace wrote, a line a call, each with a process id before it."""

    status: int
    log: list[str] = field(factory=list)


@contextlib.contextmanager
def attached(run: Callable[[], object], *options: str, error_file: Path | None = None) -> Iterator[Traced]:
    """Runs `run` in a child that strace follows from before the first line of it to its end."""
    ready_out, ready_in = os.pipe()
    go_out, go_in = os.pipe()

    def wait_and_run() -> object:
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)
        os.write(ready_in, b"1")
        os.read(go_out, 1)
        found = run()
        return found if isinstance(found, int) else None

    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        child = fork(wait_and_run, error_file)
        os.read(ready_out, 1)
        tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", str(log), "-p", str(child), *options], stderr=subprocess.PIPE, text=True
        )
        try:
            _wait_for_tracer(child, tracer)
            os.write(go_in, b"1")
            status = ended(child)
        finally:
            for descriptor in (ready_out, ready_in, go_out, go_in):
                os.close(descriptor)
            tracer.terminate()
            tracer.communicate(timeout=30)
        yield Traced(status, log.read_text().splitlines())


def _wait_for_tracer(child: int, tracer: "subprocess.Popen[str]") -> None:
    while "TracerPid:\t0\n" in Path(f"/proc/{child}/status").read_text():
        if tracer.poll() is not None:
            raise AssertionError(f"strace cannot attach: {tracer.communicate()[1]}")
