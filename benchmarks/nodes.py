"""What very large merges take on more machines than one, by `modelmerger plan --nodes`. The checkpoints are sparse files
of the full size: headers, and no data.

    python benchmarks/nodes.py [--rate 3.3] [--cores 16] [--cache DIR] [--results FILE]

Bytes and memory are the plan's. Sparse files are read faster than any disk, so minutes are those of a given rate.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scale import MODELS
from workplace import HERE

MERGES = (("weighted of two", "weighted", 2), ("slerp", "slerp", 2), ("weighted of eight", "weighted", 8))
NODES = (1, 4, 8, 16)
SHAPES = ("405B", "1T, 384 experts")
START = 1.0


def planned(root: Path, strategy: str, sources: list[Path], cores: int) -> dict[str, Any]:
    """What `plan --json` says."""
    config = root / f"{strategy}-{len(sources)}.json"
    told = {"strategy": strategy, "models": [{"path": str(source)} for source in sources]}
    options = {"check_loading": False, "io": "direct"}
    config.write_text(json.dumps({**told, "output_path": str(root / "merged"), "options": options}))
    affinity = "import os; os.sched_getaffinity = lambda _: set(range(%d)); from modelmerger.__main__ import run; run()"
    command = [
        sys.executable,
        "-c",
        affinity % cores,
        "plan",
        str(config),
        "--json",
        "--no-trial",
        "--nodes",
        str(NODES[-1]),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if not found.stdout:
        raise SystemExit(found.stderr)
    return dict(json.loads(found.stdout))


def row(name: str, plan: dict[str, Any], nodes: int, rate: float) -> str:
    """A line of the table."""
    at = next(one for one in plan["nodes"] if one["nodes"] == nodes)
    moving, computing = at["bytes_a_node"] / rate, at["computing"]
    seconds = START + max(moving, computing)
    bottleneck = "storage" if moving >= computing else "processor"
    gives = at["bytes_in_all"] / seconds / 1e9
    figures = f"{at['bytes_in_all'] / 1e12:.2f} | {seconds / 60:.1f} | {at['memory'] / 2**30:.1f}"
    return f"| {name} | {nodes} | {figures} | {bottleneck} | {gives:.1f} |"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=HERE / ".cache")
    parser.add_argument("--rate", type=float, default=3.3, help="GB a second that a node reads and writes")
    parser.add_argument("--cores", type=int, default=16, help="of a node")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "nodes.md")
    options = parser.parse_args(arguments)
    lines = ["| merge | nodes | TB in all | minutes | GiB a node | bottleneck | storage must give, GB/s |"]
    lines.append("|---|---:|---:|---:|---:|---|---:|")
    for shape in (model for model in MODELS if model.name in SHAPES):
        root = options.cache.absolute() / "scale" / shape.name.replace(" ", "-").replace(",", "")
        sources = [root / f"model-{number}" for number in range(max(count for _, _, count in MERGES))]
        for source in sources:
            if not source.exists():
                writer = [sys.executable, str(HERE / "scale.py"), "--write", shape.name, str(source)]
                subprocess.run(writer, check=True)
        for name, strategy, count in MERGES:
            plan = planned(root, strategy, sources[:count], options.cores)
            label = f"{shape.name.partition(',')[0]}, {name}"
            lines += [row(label, plan, nodes, options.rate * 1e9) for nodes in NODES]
            print(*lines[-len(NODES) :], sep="\n", flush=True)
    options.results.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
