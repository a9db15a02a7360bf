"""Moves the bytes of a merge past the page cache, and does nothing with them: what the device itself takes for it.

python benchmarks/moving.py OUTPUT DIRECTORY [DIRECTORY …]

Every file of weights of every directory is read, and those of the first are written to the output.
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
"""How many pieces are under way at once."""
Place = tuple[int, int, int | None]
"""A file, an offset, and the file that the bytes there are written to."""


def move_all(directories: list[Path], output: Path) -> int:
    """Bytes that were read."""
    local = threading.local()

    def prepare() -> None:
        local.memory = mmap.mmap(-1, PIECE)

    def move(place: Place) -> int:
        file, offset, to = place
        count = os.preadv(file, [local.memory], offset)
        if to is not None:
            os.pwrite(to, memoryview(local.memory)[: -(-count // mmap.PAGESIZE) * mmap.PAGESIZE], offset)
        return count

    output.mkdir()
    files = [sorted(directory.glob("*.safetensors")) for directory in directories]
    written = [os.open(output / file.name, os.O_CREAT | os.O_WRONLY | os.O_DIRECT) for file in files[0]]
    read = [[os.open(file, os.O_RDONLY | os.O_DIRECT) for file in own] for own in files]
    places: list[Place] = []
    for number, to in enumerate(written):
        size = os.fstat(read[0][number]).st_size
        os.posix_fallocate(to, 0, size)
        for offset in range(0, size, PIECE):
            places += [(own[number], offset, None if i else to) for i, own in enumerate(read)]
    with ThreadPoolExecutor(THREADS, initializer=prepare) as pool:
        count = sum(pool.map(move, places))
    for to, file in zip(written, read[0], strict=True):
        os.ftruncate(to, os.fstat(file).st_size)
        os.fsync(to)
    return count


if __name__ == "__main__":
    sources = [Path(source) for source in sys.argv[2:]]
    expected = sum(file.stat().st_size for source in sources for file in source.glob("*.safetensors"))
    if move_all(sources, Path(sys.argv[1])) != expected:
        raise SystemExit("the device gave fewer bytes than the files have")
