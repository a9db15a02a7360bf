"""The loop of a merge of any size, with a disk that costs nothing: sparse inputs of the full shape, and a sink that
discards. What is left is processor and memory.

    python benchmarks/loop.py                 7B, two models, weighted
    python benchmarks/loop.py --shape 70B     the same of 70B: needs no room on the disk

It prints the rate of the loop, and the minutes that merges take on disks that are slower than that.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from math import prod
from pathlib import Path
from typing import Any

from shapes import BYTES_PER_ELEMENT, SHAPES, Shape

BIG = {
    "32B": Shape("32B", 5_120, 64, 40, 27_648, 8, 152_064, tied=False),
    "70B": Shape("70B", 8_192, 80, 64, 28_672, 8, 128_256, tied=False),
    "405B": Shape("405B", 16_384, 126, 128, 53_248, 8, 128_256, tied=False),
}
ALL = {**SHAPES, **BIG}
DISKS = {"NVMe, 2 GB/s": 2.0, "NVMe, 3.5 GB/s": 3.5, "NVMe, 7 GB/s": 7.0, "network, 1 GB/s": 1.0}
SHARD = 5 * 10**9


def write_sparse(shape: Shape, directory: Path) -> None:
    """A model whose numbers are all 0, and take no room."""
    directory.mkdir()
    shards: list[dict[str, Any]] = [{}]
    end, weight_map = 0, {}
    for name, dimensions in shape.tensors():
        size = prod(dimensions) * BYTES_PER_ELEMENT
        if end and end + size > SHARD:
            shards.append({})
            end = 0
        shards[-1][name] = {"dtype": "BF16", "shape": dimensions, "data_offsets": [end, end + size]}
        end += size
    for number, entries in enumerate(shards, 1):
        file_name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        text = json.dumps(entries).encode()
        with (directory / file_name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + max(entry["data_offsets"][1] for entry in entries.values()))
        weight_map |= dict.fromkeys(entries, file_name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "config.json").write_text(json.dumps(shape.config()))


class Discarding:
    """A sink that only remembers which blocks are done."""

    def __init__(self) -> None:
        self.records: dict[tuple[int, int], Any] = {}

    def open_file(self, file: int) -> int:
        return file

    def write(self, *_: object) -> None:
        pass

    def flush(self, *_: object) -> None:
        pass

    def close_file(self, *_: object) -> None:
        pass

    def record(self, file: int, block: int, record: Any) -> None:
        self.records[file, block] = record


def run(models: list[Path], output: Path, io: str) -> tuple[int, int, float, float]:
    """Bytes read and written, wall seconds of the loop, and CPU seconds of it."""
    from modelmerger.config.resolve import resolve
    from modelmerger.engine.merge import Merge
    from modelmerger.engine.merged_checkpoint import MergedCheckpoint
    from modelmerger.engine.work.executing import carry_out
    from modelmerger.planning.prepared import prepare

    options = {"io": io, "check_loading": False, "normalize_weights": True}
    given = {"strategy": "weighted", "models": [{"path": str(path)} for path in models], "options": options}
    settings, hooks = resolve({**given, "output_path": str(output)})
    with prepare(settings, hooks, merged=MergedCheckpoint) as ready:
        start, used = time.perf_counter(), cpu()
        carry_out(Merge(ready.plan, ready.sources, hooks, ready.settings), Discarding(), lambda _: None)
        return ready.plan.bytes_read, ready.plan.bytes_written, time.perf_counter() - start, cpu() - used


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def expected(rate: float) -> str:
    """Minutes of weighted merges of two models. rate: of the loop, bytes moved a second."""
    lines = ["| model | GB moved | " + " | ".join(DISKS) + " |", "|---|---:|" + "---:|" * len(DISKS)]
    for name in ("7B", *BIG):
        moved = 3 * ALL[name].bytes
        cells = []
        for disk in DISKS.values():
            slowest = min(rate, disk * 1e9)
            cells.append(f"{moved / slowest / 60:.1f} ({'processor' if rate < disk * 1e9 else 'disk'})")
        lines.append(f"| {name} | {moved / 1e9:,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=ALL, default="7B")
    parser.add_argument("--io", choices=["auto", "direct", "buffered"], default="direct")
    parser.add_argument("--scratch", type=Path, help="a folder on a file system with sparse files")
    options = parser.parse_args()
    shape = ALL[options.shape]
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        models = [Path(folder) / f"model-{number}" for number in (1, 2)]
        for model in models:
            write_sparse(shape, model)
        read, written, wall, used = run(models, Path(folder) / "output", options.io)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    rate = (read + written) / wall
    print(f"{shape.name}: {(read + written) / 1e9:,.0f} GB through the loop in {wall:.1f} s, {used:.1f} s of CPU,")
    print(f"{rate / 1e9:.2f} GB/s on {len(os.sched_getaffinity(0))} cores, peak {peak} MiB\n")
    print(expected(rate))


if __name__ == "__main__":
    main()
