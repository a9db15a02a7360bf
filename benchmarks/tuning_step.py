"""What a step of tuning takes: memory, and time of the clock and of the processor, with models of real shapes.

    python benchmarks/tuning_step.py [--shape 0.5B] [--models 4] [--dtype float32] [--tokens 512] [--rounds 3] [--cache DIR]

A step is a forward and a backward pass through `--tokens` tokens, in texts of 128, with one number a tensor and model.
Models are random (`synthetic.py`), beside a base, and are kept in `--cache`. The first step warms caches and does not
count. The peak is that of the whole process, the imports of torch and transformers included.
"""

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from modelmerger import map_from
from modelmerger_plugins.tune.evaluating import ByCoefficients
from modelmerger_plugins.tune.measured import Lines
from modelmerger_plugins.tune.opened import opened, read
from shapes import SHAPES

HERE = Path(__file__).parent
TOKENIZER = HERE.parent / "examples/dialects/base"
TEXT = 128


def models_of(shape: str, count: int, cache: Path) -> list[Path]:
    """The base and so many models, made where they are missing, with a small tokenizer beside each."""
    found = [cache / f"tuning-{shape}-{number}" for number in range(count + 1)]
    for number, directory in enumerate(found):
        if not directory.exists():
            subprocess.run([sys.executable, HERE / "synthetic.py", shape, str(number), directory], check=True)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copyfile(TOKENIZER / name, directory / name)
    return found


def config_of(models: Sequence[Path], dtype: str) -> dict[str, object]:
    mark = {"tune": [0, 1], "start": 0.35, "per": "tensor"}
    return {
        "strategy": "task_arithmetic",
        "base_model": str(models[0]),
        "models": [{"path": str(path), "weight": mark} for path in models[1:]],
        "options": {"scaling_factor": 1.0},
        "tune": {"search": {"dtype": dtype}},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="0.5B", choices=list(SHAPES))
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=HERE / ".cache")
    told = parser.parse_args(arguments)
    map_from()  # as the command does
    told.cache.mkdir(parents=True, exist_ok=True)
    found = opened(read(config_of(models_of(told.shape, told.models, told.cache), told.dtype)), 100)
    evaluator = ByCoefficients(found)
    drawn = random.Random(0)
    texts = [
        [drawn.randrange(1, SHAPES[told.shape].vocabulary) for _ in range(TEXT - 1)] for _ in range(told.tokens // TEXT)
    ]
    lines = Lines({"all": texts}, {"all": told.tokens})
    print(
        f"{told.shape}, {told.models} models, {told.dtype}, {len(found.space.coordinates)} numbers, {torch.get_num_threads()} threads"
    )
    for number in range(told.rounds + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        evaluator.slopes(lines, found.space.start)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        name = f"step {number}" if number else "first step"
        print(
            f"{name}: {wall:.1f} s, {cpu:.1f} s of CPU, peak {peak:.2f} GiB, load {os.getloadavg()[0]:.1f}", flush=True
        )


if __name__ == "__main__":
    main()
