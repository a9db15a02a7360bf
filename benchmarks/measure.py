"""Run one process to its end and measure it from outside."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLING_INTERVAL = 0.05  # seconds
UNSET = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # each contender uses as many threads as it would by itself


@dataclass(frozen=True)
class Measurement:
    """What a process and the children it waited for used. Seconds and bytes.

    `peak_resident` is the kernel's high-water mark (ru_maxrss) and counts mapped file pages; it is never below what the
    harness itself held when it forked. `peak_anonymous` is the largest RssAnon that sampling saw. `storage_read` and
    `storage_written` are what the kernel fetched from and will write to the device: a read from the page cache is not
    in `storage_read`. `others` is the CPU time that everything else took meanwhile: other processes, the kernel's
    writeback, and what the hypervisor withheld. `unsynced` is how long its output still took, after its end, to be on
    the device.
    """

    wall: float
    user: float
    system: float
    peak_resident: int
    peak_anonymous: int
    storage_read: int
    storage_written: int
    others: float
    status: int
    output: str
    unsynced: float = 0.0

    @property
    def cpu(self) -> float:
        return self.user + self.system


def run(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Measurement:
    """Run `command`, its stdout and stderr in `log`; `output` is the end of that."""
    environment = {**{key: value for key, value in os.environ.items() if key not in UNSET}, **environment}
    with log.open("wb") as stream:
        busy, start = busy_seconds(), time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        finished = threading.Event()
        peaks = [0]
        sampler = threading.Thread(target=sample_anonymous, args=(process.pid, finished, peaks))
        sampler.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall, busy = time.perf_counter() - start, busy_seconds() - busy
        finished.set()
        sampler.join()
        transferred = read_fields(Path(f"/proc/{process.pid}/io"))  # gone once the process has been waited for
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
    return Measurement(
        wall=wall,
        user=usage.ru_utime,
        system=usage.ru_stime,
        peak_resident=usage.ru_maxrss * 1024,
        peak_anonymous=max(peaks) * 1024,
        storage_read=transferred["read_bytes"],
        storage_written=transferred["write_bytes"],
        others=max(0.0, busy - usage.ru_utime - usage.ru_stime),
        status=process.returncode,
        output=log.read_text(errors="replace")[-2_000:],
    )


def sync(files: Sequence[Path]) -> float:
    """Wait until files are on the device; how long that took."""
    start = time.perf_counter()
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return time.perf_counter() - start


def sample_anonymous(pid: int, finished: threading.Event, peaks: list[int]) -> None:
    while not finished.wait(SAMPLING_INTERVAL):
        peaks.append(read_fields(Path(f"/proc/{pid}/status")).get("RssAnon", 0))


def busy_seconds() -> float:
    """CPU time of the whole machine since it started, over all cores, idling and waiting for the disk aside."""
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, interrupts, soft_interrupts, stolen))) / os.sysconf("SC_CLK_TCK")


def read_fields(path: Path) -> dict[str, int]:
    """The lines `name: number [unit]` of a file under /proc."""
    found: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        number = value.split()[0] if value.split() else ""
        if number.isdecimal():
            found[name] = int(number)
    return found


def read_through(files: Sequence[Path]) -> None:
    """Bring files into the page cache, as far as memory allows."""
    buffer = bytearray(2**20)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def touch_memory(size: int) -> None:
    """Use that much memory and free it, in another process.

    A virtual machine may have handed free memory back to its host, and then the first use of each page takes many times
    as long as usual: by chance, some runs would pay for it and others not.
    """
    flags = "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE"
    subprocess.run([sys.executable, "-c", f"import mmap; mmap.mmap(-1, {size}, flags={flags})"], check=True)


def evict(files: Sequence[Path]) -> None:
    """Ask the kernel to drop files from the page cache; it keeps pages that are not yet written."""
    os.sync()
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
