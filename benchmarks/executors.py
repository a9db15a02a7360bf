"""What a merge costs on Ray beside threads, on one machine, in CPU seconds; and how many tasks a second go through the
driver, whoever does them.

    python benchmarks/executors.py [--shape 1.5B] [--rounds 3] [--cache DIR]

Ray's own start and the workers' import of torch, which every merge on it pays once, are a merge of a tiny model.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from shapes import SHAPES, Shape
from synthetic import write_model
from workplace import HERE

MARK, SAMPLING = "MODELMERGER_BENCHMARK", 0.05
"""The variable that all processes of a merge have in their environment, and seconds between two looks at them."""
BLOCKS_A_TASK = 16
"""What the rate of the driver is measured with."""
RAY = """
import ray
init = ray.init
ray.init = lambda *given, **told: init(*given, num_cpus={cpus}, include_dashboard=False, **told)
"""


def cpu_seconds(config: Path, executor: str) -> float:
    """CPU seconds of a merge with all of its processes, those of Ray among them, whoever waits for them."""
    code = RAY.format(cpus=len(os.sched_getaffinity(0))) if executor == "ray" else ""
    code += f"from modelmerger import MergeConfig, merge\nmerge(MergeConfig.from_file({str(config)!r}))"
    mark = f"{MARK}={os.urandom(8).hex()}"
    key, _, value = mark.partition("=")
    seen: dict[str, float] = {}
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, key: value}, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                look(entry, mark.encode(), seen)
        time.sleep(SAMPLING)
    if process.returncode:
        raise SystemExit(f"{config} failed")
    return sum(seen.values())


def look(process: str, mark: bytes, seen: dict[str, float]) -> None:
    """Notes what a process that has the mark in its environment has used so far."""
    with contextlib.suppress(OSError):
        if process not in seen and mark not in Path("/proc", process, "environ").read_bytes():
            return
        fields = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
        seen[process] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def config_of(folder: Path, strategy: str, sources: Sequence[Path], executor: str) -> Path:
    """The config of a merge, in a file."""
    options = {"executor": executor, "overwrite": True, "check_loading": False}
    models = [{"path": str(source)} for source in sources]
    path = folder / f"{strategy}-{executor}.json"
    told = {"strategy": strategy, "models": models, "output_path": str(folder / "merged"), "options": options}
    path.write_text(json.dumps(told))
    return path


def driver_rate(tasks: int = 4_000) -> float:
    """Tasks of sixteen blocks a second that a schedule hands out and takes back, and whose blocks are journalled."""
    import torch
    from modelmerger.engine.merge import Merge
    from modelmerger.engine.work.schedule import Schedule
    from modelmerger.engine.work.totals import Totals
    from modelmerger.output.staging import Staging
    from modelmerger.testing.merging import plan_in_memory
    from modelmerger.values.work.block_record import BlockRecord, Piece
    from modelmerger.values.work.units import Done, Unit

    planned = plan_in_memory("weighted", [{"w": torch.zeros(4)}, {"w": torch.ones(4)}])
    merge = Merge(planned.plan, planned.checkpoints, planned.hooks, planned.settings)
    pieces = [Piece(8 << 20, "0" * 64, "model.layers.0.mlp.up_proj.weight"), Piece(8 << 20, "1" * 64, "lm_head.weight")]
    units = [Unit("write", 0, BLOCKS_A_TASK * i, BLOCKS_A_TASK * (i + 1)) for i in range(tasks)]
    with tempfile.TemporaryDirectory() as place, Staging(Path(place) / "out", "plan", planned.plan.layout) as staging:
        work = Schedule(merge, staging, lambda _: None)
        work._waiting, work._totals = dict.fromkeys(units), Totals(units)  # noqa: SLF001 (in place of its one)
        started = time.perf_counter()
        while task := work.take(0):
            records = {block: BlockRecord(pieces) for block in range(task.unit.first, task.unit.last)}
            work.done(Done(task.unit, task.token, 1, records))
        return tasks / (time.perf_counter() - started)


def models_of(shape: Shape, cache: Path) -> list[Path]:
    """Two models of a shape, written where they are not there."""
    sources = [cache / "executors" / shape.name / name for name in "ab"]
    for number, source in enumerate(sources):
        if not source.exists():
            source.parent.mkdir(parents=True, exist_ok=True)
            write_model(shape, number, source)
    return sources


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=HERE / ".cache")
    parser.add_argument("--shape", default="1.5B")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    print(f"driver: {driver_rate():,.0f} tasks of {BLOCKS_A_TASK} blocks a second", flush=True)
    if find_spec("ray") is None:
        print("Ray is not installed, so nothing is compared: pip install 'modelmerger[ray]'")
        return 0
    print("| merge | threads, CPU s | Ray, CPU s | its start and imports | the rest over threads |")
    print("|---|---:|---:|---:|---:|")
    shapes = [SHAPES["trial"], SHAPES[options.shape]]
    for strategy in ("weighted", "slerp"):
        found = {}
        for shape in shapes:
            with tempfile.TemporaryDirectory(dir=options.cache) as place:
                sources = models_of(shape, options.cache.absolute())
                for executor in ("threads", "ray"):
                    config = config_of(Path(place), strategy, sources, executor)
                    times = sorted(cpu_seconds(config, executor) for _ in range(options.rounds))
                    found[shape.name, executor] = times[len(times) // 2]
        start = found[shapes[0].name, "ray"] - found[shapes[0].name, "threads"]
        threads, on_ray = (found[shapes[1].name, executor] for executor in ("threads", "ray"))
        over = f"{(on_ray - start) / threads - 1:+.0%}"
        print(f"| {shapes[1].name}, {strategy} | {threads:.1f} | {on_ray:.1f} | {start:.1f} | {over} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
