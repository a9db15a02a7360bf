"""What a planned merge will meet on this machine: how much disk is free, and how long it will take at today's rates."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from modelmerger.inputs.direct.aligned import aligned_memory
from modelmerger.inputs.files import InputFiles
from modelmerger.output.digests import digest_of_bytes
from modelmerger.output.direct import DIRECT
from modelmerger.output.parent_folder import standing_folder
from modelmerger.output.system import free_bytes
from modelmerger.planning.outlook.trial import Trial
from modelmerger.values.errors import InputError
from modelmerger.values.model_reference import user_path
from modelmerger.values.plan import MergePlan
from modelmerger.values.text import shown, size

START = 1.0
"""Seconds from the command to the first slice, most of them torch's import."""
ARITHMETIC = 0.2e-9
"""Seconds a core takes to read a byte from memory, merge and write it, without digests: from the 1.5B benchmark."""
A_TENSOR = 60e-6
"""Seconds that a tensor costs, however small it is."""
PATIENCE = 0.25
"""Seconds that each rate is measured for."""
CHUNK = 4 << 20
"""Bytes that are read or written at a time while a rate is measured."""
MOST_BYTES = 64 << 20
"""Bytes that a rate is measured over at most."""


@frozen
class Outlook:
    """What a merge will meet on this machine. Everything is None without an output path whose folder exists."""

    folder: str | None
    """Where the output directory will be, or the folder around that one if it is still to be made."""
    free: int | None
    """Free bytes on the disk of that folder; None where its file system does not say."""
    enough: bool | None
    """Whether these are enough for the merge; None where they are not known."""
    read_rate: float | None
    """Bytes a second that are read from the inputs; None where they cannot be read."""
    write_rate: float | None
    """Bytes a second that are written to the folder; None where that cannot be tried."""
    seconds: float | None
    """How long the merge will take; None where a rate is not known."""
    moving: float | None = None
    """Seconds of those in which bytes are read and written, if nothing else takes longer."""
    computing: float | None = None
    """Seconds of those that the arithmetic takes, if nothing else takes longer."""

    def as_dict(self) -> dict[str, Any]:
        """The outlook as plain data, for `--json`."""
        return asdict(self, filter=lambda field, _: field.name not in ("moving", "computing"))

    def __str__(self) -> str:
        lines = []
        if self.free is not None:
            verdict = "enough" if self.enough else "NOT ENOUGH for this merge"
            lines.append(f"free     {size(self.free)} in {shown(self.folder)}: {verdict}")
        if self.seconds is not None and self.read_rate and self.write_rate:
            rates = f"reading {size(self.read_rate)}/s, writing {size(self.write_rate)}/s"
            lines.append(f"time     about {duration(self.seconds)} ({rates}, measured now)")
        return "\n".join(lines)


def look_ahead(plan: MergePlan, output: Path | None, trial: Trial | None = None) -> Outlook:
    """Measures how fast inputs are read and a nameless file on the output's disk is written, in half a second.

    trial: of the merge, if there was one; without, the arithmetic counts as that of the built-in strategies does.
    """
    folder = standing_folder(Path(os.path.abspath(user_path(output)))) if output is not None else None
    if folder is None or not folder.is_dir():
        return Outlook(None, None, None, None, None, None)
    free = free_bytes(folder)
    read_rate, write_rate = _read_rate(plan), _write_rate(plan, folder)
    seconds = moving = computing = None
    if read_rate and write_rate:
        computing = (_arithmetic(plan) if trial is None else trial.computing) / plan.workers
        least = START + A_TENSOR * len(plan.tensors)
        reading, writing = (plan.bytes_read - plan.bytes_reused) / read_rate, plan.bytes_written / write_rate
        moving = _moving(plan, reading, writing)
        seconds = least + max(moving, computing)
    enough = None if free is None else free >= plan.disk
    return Outlook(str(folder), free, enough, read_rate, write_rate, seconds, moving, computing)


def _moving(plan: MergePlan, reading: float, writing: float) -> float:
    """Seconds of reading and writing. One device does either at a time, and inputs may be on the output's."""
    from_device = any(way == "direct" for way in plan.ways.values())
    return reading + writing if from_device else max(reading, writing)


def _arithmetic(plan: MergePlan) -> float:
    """Seconds that one core takes."""
    content = bytes(CHUNK)
    started = time.perf_counter()
    digest_of_bytes(content)
    digesting = (time.perf_counter() - started) / CHUNK * plan.bytes_written
    return ARITHMETIC * (plan.bytes_read + plan.bytes_written) + digesting


def _read_rate(plan: MergePlan) -> float | None:
    """Over chunks spread over all files, so that the page cache counts for as much of them as it holds, and read as the
    merge reads them.
    """
    files = plan.inputs
    chunks = [(file, offset) for file in files for offset in range(0, file.size, max(CHUNK, file.size // 8))]
    chosen = chunks[:: max(1, len(chunks) // (MOST_BYTES // CHUNK))]
    buffer = memoryview(bytearray(CHUNK))
    past = any(way == "direct" for way in plan.ways.values())
    with contextlib.closing(InputFiles(io="auto" if past else "buffered")) as reader:
        for file, offset in chosen if past else ():
            reader.prefetch(file, offset, min(CHUNK, file.size - offset))

        def read(number: int) -> int:
            file, offset = chosen[number]
            length = min(CHUNK, file.size - offset)
            reader.read(file, offset, buffer[:length])
            return length

        return _rate(read, len(chosen))


def _write_rate(plan: MergePlan, folder: Path) -> float | None:
    for direct in [DIRECT] * plan.direct + [0]:
        try:
            descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC | direct, 0o600)
            break
        except (OSError, AttributeError):  # not on this system, this file system, or not by this user
            continue
    else:
        return None
    content = aligned_memory(CHUNK)
    content[:] = os.urandom(CHUNK)

    def write(number: int) -> int:
        count = os.pwrite(descriptor, content, number * CHUNK)
        if not plan.direct:
            os.fdatasync(descriptor)
        return count

    try:
        return _rate(write, MOST_BYTES // CHUNK)
    finally:
        os.close(descriptor)


def _rate(move: Callable[[int], int], times: int) -> float | None:
    """Bytes a second of calls that say how many bytes they moved; None where they moved none."""
    started, moved = time.perf_counter(), 0
    try:
        for number in range(times):
            moved += move(number)
            if time.perf_counter() - started > PATIENCE:
                break
    except (OSError, InputError):
        return None
    return moved / (time.perf_counter() - started) if moved else None


def duration(seconds: float) -> str:
    """Seconds in words: `8 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
