"""Reads files from the device, past the page cache, and does nothing with them: what any reading of them takes.

python benchmarks/reading.py FILE [FILE …]
"""

import mmap
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PIECE = 4 << 20
"""Bytes that are asked for at a time."""
THREADS = 4
"""How many pieces are asked for at once."""


def read_all(files: list[Path]) -> int:
    """Bytes that were read."""
    local = threading.local()

    def prepare() -> None:
        local.memory = mmap.mmap(-1, PIECE)

    def read(place: tuple[int, int]) -> int:
        return os.preadv(place[0], [local.memory], place[1])

    opened = [os.open(file, os.O_RDONLY | os.O_DIRECT) for file in files]
    places = [(file, offset) for file in opened for offset in range(0, os.fstat(file).st_size, PIECE)]
    with ThreadPoolExecutor(THREADS, initializer=prepare) as pool:
        return sum(pool.map(read, places))


if __name__ == "__main__":
    expected = sum(Path(file).stat().st_size for file in sys.argv[1:])
    if read_all([Path(file) for file in sys.argv[1:]]) != expected:
        raise SystemExit("the device gave fewer bytes than the files have")
