"""What a merge costs on Ray beside threads, on one machine, in CPU seconds by process; and how many tasks a second go
through the driver.

    python benchmarks/executors.py [--shape 1.5B] [--rounds 3] [--cache DIR] [--results FILE]

What every merge on Ray pays once is apart: the start of a cluster, until it rests, and the opening in the worker, which
imports torch there and plans the merge again.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from measure import read_through
from shapes import SHAPES, Shape
from synthetic import write_model
from workplace import HERE

STRATEGIES = ("weighted", "slerp")
EXECUTORS = ("threads", "ray")
Phases = Mapping[str, Mapping[str, float]]
HEADS = (
    "merge",
    "threads",
    "on Ray",
    "of it the driver",
    "the worker",
    "Ray's daemons",
    "over threads",
    "of the work alone",
    "apart: Ray's start",
    "opening in the worker",
)


def phases_of(config: Path) -> Phases:
    """CPU seconds of a merge, by phase and kind of process: see `executed.py`."""
    command = [sys.executable, str(HERE / "executed.py"), str(config)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(found.stdout.splitlines()[-1]))


def config_of(folder: Path, strategy: str, sources: Sequence[Path], executor: str) -> Path:
    """The config of a merge, in a file."""
    options = {"executor": executor, "check_loading": False}
    models = [{"path": str(source)} for source in sources]
    path = folder / f"{strategy}-{executor}.json"
    told = {"strategy": strategy, "models": models, "output_path": str(folder / "merged"), "options": options}
    path.write_text(json.dumps(told))
    return path


def models_of(shape: Shape, cache: Path) -> list[Path]:
    """Two models of a shape, written where they are not there."""
    sources = [cache / "executors" / shape.name / name for name in "ab"]
    for number, source in enumerate(sources):
        if not source.exists():
            source.parent.mkdir(parents=True, exist_ok=True)
            write_model(shape, number, source)
    return sources


def figures(threads: Phases, on_ray: Phases) -> list[float]:
    """The figures of one round, in the order of the columns."""
    begun = ("opening", "work")
    ours = sum(threads[phase]["driver"] for phase in begun)
    driver, daemons = (sum(on_ray[phase][kind] for phase in begun) for kind in ("driver", "daemons"))
    worker = on_ray["work"]["worker"]
    over = (driver + worker + daemons) / ours - 1
    alone = sum(on_ray["work"].values()) / threads["work"]["driver"] - 1
    start = sum(on_ray["start"].values())
    return [ours, driver + worker + daemons, driver, worker, daemons, over, alone, start, on_ray["opening"]["worker"]]


def row(name: str, rounds: Sequence[Sequence[float]]) -> str:
    """A line of the table: medians."""
    cells = []
    for head, values in zip(HEADS[1:], zip(*rounds, strict=True), strict=True):
        value = statistics.median(values)
        cells.append(f"{value:+.0%}" if head in ("over threads", "of the work alone") else f"{value:.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=HERE / ".cache")
    parser.add_argument("--shape", default="1.5B")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="a file for what is printed")
    options = parser.parse_args(arguments)
    lines = [
        subprocess.run([sys.executable, str(HERE / "handing_out.py")], stdout=-1, text=True, check=True).stdout,
        "",
    ]
    print(lines[0], flush=True)
    if find_spec("ray") is None:
        print("Ray is not installed, so nothing is compared: pip install 'modelmerger[ray]'")
        return 0
    lines += [f"| {' | '.join(HEADS)} |", f"|---|{'---:|' * (len(HEADS) - 1)}"]
    print("\n".join(lines[2:]), flush=True)
    shape, cache = SHAPES[options.shape], options.cache.absolute()
    sources = models_of(shape, cache)
    for strategy in STRATEGIES:
        found: list[list[float]] = []
        with tempfile.TemporaryDirectory(dir=cache) as place:
            configs = [config_of(Path(place), strategy, sources, executor) for executor in EXECUTORS]
            for _ in range(options.rounds):
                phases = []
                for config in configs:
                    shutil.rmtree(Path(place, "merged"), ignore_errors=True)
                    os.sync()
                    read_through([file for source in sources for file in sorted(source.iterdir())])
                    phases.append(phases_of(config))
                found.append(figures(*phases))
        lines.append(row(f"{shape.name}, {strategy}", found))
        print(lines[-1], flush=True)
    if options.results:
        options.results.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
