"""The loop of a merge and nothing else: two threads that read, add up, digest and write. What a merge adds to that is
its own cost.

python benchmarks/bare.py OUTPUT COEFFICIENT DIRECTORY [COEFFICIENT DIRECTORY …]

There is no plan, no check, no journal and no manifest: files of the same sizes are taken for bfloat16 from their first
byte to their last, so the output is no model. Reads, arithmetic, BLAKE3, writes and fsync are what modelmerger does.
"""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3
from modelmerger.output.system import start_writeback

if TYPE_CHECKING:
    import torch

BLOCK, WINDOW = 16 << 20, 1 << 20  # modelmerger's own
WORKERS = 2


def work(
    blocks: Iterator[tuple[int, int, int]], lock: threading.Lock, files: list[list[int]], factors: "list[torch.Tensor]"
) -> None:
    import torch

    raw, out = (torch.empty(WINDOW // 2, dtype=torch.bfloat16) for _ in range(2))
    total, term = (torch.empty(WINDOW // 2) for _ in range(2))
    read, written = (tensor.view(torch.uint8).numpy().data for tensor in (raw, out))
    while True:
        with lock:
            number, begin, end = next(blocks, (0, 0, 0))
        if begin == end:
            return
        *inputs, output = files[number]
        hasher = blake3()
        for low in range(begin, end, WINDOW):
            length = min(WINDOW, end - low)
            for place, (file, factor) in enumerate(zip(inputs, factors, strict=True)):
                os.preadv(file, [read[:length]], low)
                target = term if place else total
                target.copy_(raw).mul_(factor)
                if place:
                    total.add_(term)
            out.copy_(total)
            float(out.sum())
            hasher.update(written[:length])
            os.pwrite(output, written[:length], low)
        hasher.digest()
        start_writeback(output, begin, end - begin)


def main(output: Path, *pairs: str) -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = (
        "1"  # this and the next as the command line of modelmerger does before it imports torch
    )
    gc.disable()
    import torch

    torch.set_num_threads(1)
    factors = [torch.tensor(float(coefficient)) for coefficient in pairs[::2]]
    output.mkdir()
    files: list[list[int]] = []
    blocks: list[tuple[int, int, int]] = []
    for paths in zip(*(sorted(Path(directory).glob("*.safetensors")) for directory in pairs[1::2]), strict=True):
        size = paths[0].stat().st_size
        written = os.open(output / paths[0].name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.posix_fallocate(written, 0, size)
        blocks += [(len(files), begin, min(size, begin + BLOCK)) for begin in range(0, size, BLOCK)]
        files.append([*(os.open(path, os.O_RDONLY) for path in paths), written])
    arguments = iter(blocks), threading.Lock(), files, factors
    threads = [threading.Thread(target=work, args=arguments) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for opened in files:
        os.fsync(opened[-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
    os._exit(0)
