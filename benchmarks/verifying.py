"""How fast `modelmerger verify` reads a merged model, beside a reading of the same bytes that does nothing else.

    python benchmarks/verifying.py                        1.5B
    python benchmarks/verifying.py --shapes 7B            two models and an output: needs 50 GB of disk

Both in turn, whole processes, nothing of the files in the page cache; writes benchmarks/results/verifying.md.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import contenders
import machine
import measure
from contenders import Merge, Variant
from options import some_of
from shapes import SHAPES, Shape
from workplace import HERE, model_limit, prepare_models, remove_large, size_of


def merged(cache: Path, shape: Shape, budget: int) -> Path:
    """An output of modelmerger."""
    models = prepare_models(cache, shape, (1, 2), budget)
    scratch = cache / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    run = contenders.modelmerger(Merge(shape, "weighted", tuple(models.values())), scratch, Variant())
    found = measure.run(run.command, run.environment, scratch / "log")
    if found.status != 0:
        raise SystemExit(found.output)
    remove_large(cache, shape)
    return run.output


def measured(output: Path, rounds: int) -> dict[str, list[measure.Measurement]]:
    """The runs of each program, in turn."""
    files = sorted(output.glob("*.safetensors"))
    programs = {
        "verify": (sys.executable, "-m", "modelmerger", "verify", str(output)),
        "reading": (sys.executable, str(HERE / "reading.py"), *map(str, files)),
    }
    runs: dict[str, list[measure.Measurement]] = {name: [] for name in programs}
    for number in range(rounds):
        for name, command in programs.items():
            measure.evict(files)
            found = measure.run(command, {}, output.parent / "log")
            if found.status != 0:
                raise SystemExit(found.output)
            print(f"{name}: round {number + 1}: {found.wall:.2f} s", flush=True)
            runs[name].append(found)
    return runs


def row(shape: Shape, size: int, name: str, runs: dict[str, list[measure.Measurement]]) -> str:
    wall = median(run.wall for run in runs[name])
    times = median(one.wall / other.wall for one, other in zip(runs[name], runs["reading"], strict=True))
    cpu = median(run.cpu for run in runs[name])
    return (
        f"| {shape.name} | {name} | {size / 1e9:.1f} | {wall:.2f} | {size / wall / 1e9:.2f} | {times:.2f} | {cpu:.2f} |"
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=some_of(SHAPES), default=["1.5B"], help=",".join(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=HERE / ".cache")
    parser.add_argument("--disk-gb", type=float, default=40)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args(arguments)
    cache, budget = options.cache.absolute(), int(options.disk_gb * 1e9)
    cache.mkdir(parents=True, exist_ok=True)
    described = machine.describe(cache, None)
    lines = ["# Verifying", "", "`modelmerger verify` of a merged model, and a program that only reads its files."]
    lines += [f"In turn, medians of {options.rounds} rounds, past the page cache; {described['cpu']}.", ""]
    lines += [
        "| model | program | GB | wall s | GB/s | times the reading | CPU s |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for shape in (SHAPES[name] for name in options.shapes):
        if model_limit(cache, shape, budget) < 2:
            lines += [
                f"| {shape.name} | no room for two models and an output: {3 * shape.bytes / 1e9:.0f} GB | | | | | |"
            ]
            continue
        output = merged(cache, shape, budget)
        runs = measured(output, options.rounds)
        lines += [row(shape, size_of([output]), name, runs) for name in runs]
        shutil.rmtree(cache / "scratch")
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "verifying.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
