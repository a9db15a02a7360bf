"""What a planned merge will meet here: free disk, and how long it will take at the rates that this machine has now."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from modelmerger.inputs.regular_files import open_regular
from modelmerger.output.digests import digest_of_bytes
from modelmerger.values.errors import InputError
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.model_reference import user_path
from modelmerger.values.plan import MergePlan
from modelmerger.values.text import shown, size

START = 1.0
"""Seconds from the command to the first slice, most of them torch's import."""
ARITHMETIC = 0.2e-9
"""Seconds a core takes to read a byte from memory, merge it and write it, digests aside: measured on the 1.5B benchmark."""
A_TENSOR = 60e-6
"""Seconds that a tensor costs, however small it is."""
PATIENCE = 0.25
"""Seconds that each rate is measured for."""
PIECE = 4 << 20
WINDOW = 64 << 20
"""Bytes that a rate is measured over at most."""


@frozen
class Outlook:
    """free: bytes on the output's disk. Rates in bytes a second. None: not to be known (no output path, or no folder for it)."""

    folder: str | None
    free: int | None
    enough: bool | None
    read_rate: float | None
    write_rate: float | None
    seconds: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = []
        if self.free is not None:
            verdict = "enough" if self.enough else "NOT ENOUGH for this merge"
            lines.append(f"free     {size(self.free)} in {shown(self.folder)}: {verdict}")
        if self.seconds is not None and self.read_rate and self.write_rate:
            rates = f"reading {size(self.read_rate)}/s, writing {size(self.write_rate)}/s"
            lines.append(f"time     about {_duration(self.seconds)} ({rates}, measured now)")
        return "\n".join(lines)


def look_ahead(plan: MergePlan, output: Path | None) -> Outlook:
    """Reads a little of the inputs, and writes a little to a nameless file on the output's disk. Takes about half a second."""
    folder = Path(os.path.abspath(user_path(output))).parent if output is not None else None
    if folder is None or not folder.is_dir():
        return Outlook(None, None, None, None, None, None)
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    read_rate, write_rate = _read_rate(plan.inputs), _write_rate(folder)
    seconds = None
    if read_rate and write_rate:
        content = bytes(PIECE)
        started = time.perf_counter()
        digest_of_bytes(content)
        digesting = (time.perf_counter() - started) / PIECE * plan.bytes_written
        computing = (ARITHMETIC * (plan.bytes_read + plan.bytes_written) + digesting) / plan.workers
        least = START + A_TENSOR * len(plan.tensors)
        seconds = least + max(plan.bytes_read / read_rate, plan.bytes_written / write_rate, computing)
    return Outlook(str(folder), free, free >= plan.disk, read_rate, write_rate, seconds)


def _read_rate(files: Sequence[FileIdentity]) -> float | None:
    """Of pieces spread over all files, so that what the page cache holds of them counts for as much as it is."""
    pieces = [(file, offset) for file in files for offset in range(0, file.size, max(PIECE, file.size // 8))]
    chosen = pieces[:: max(1, len(pieces) // (WINDOW // PIECE))]
    buffer = memoryview(bytearray(PIECE))

    def read(number: int) -> int:
        file, offset = chosen[number]
        descriptor = open_regular(file.path)
        try:
            return os.preadv(descriptor, [buffer], offset)
        finally:
            os.close(descriptor)

    return _rate(read, len(chosen))


def _write_rate(folder: Path) -> float | None:
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):  # not on this system, this file system, or not by this user
        return None
    content = os.urandom(PIECE)

    def write(number: int) -> int:
        count = os.pwrite(descriptor, content, number * PIECE)
        os.fdatasync(descriptor)
        return count

    try:
        return _rate(write, WINDOW // PIECE)
    finally:
        os.close(descriptor)


def _rate(step: Callable[[int], int], steps: int) -> float | None:
    """Bytes a second of steps that say how many bytes they moved; None where nothing was."""
    started, moved = time.perf_counter(), 0
    try:
        for number in range(steps):
            moved += step(number)
            if time.perf_counter() - started > PATIENCE:
                break
    except (OSError, InputError):
        return None
    return moved / (time.perf_counter() - started) if moved else None


def _duration(seconds: float) -> str:
    """`8 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
