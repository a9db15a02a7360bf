"""Measure modelmerger beside mergekit and a plain copy, on synthetic checkpoints of real shapes.

    python benchmarks/run.py            every shape, 3 rounds; writes benchmarks/results/latest.{json,md,svg}
    python benchmarks/run.py --quick    the smallest shape, 1 round; writes beside the cache alone

Contenders run in turn (A B C A B C …), each as a whole process. README.md beside this file says what is measured.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import contenders
import machine
import measure
from contenders import Merge, Run, Variant
from methods import DENSITY, METHODS, STRATEGIES
from options import ADAPTERS, parse
from report import markdown, write_reports
from results import Result
from shapes import SHAPES, Shape
from workplace import HERE, model_limit, prepare_adapters, prepare_mergekit, prepare_models, remove_large, size_of

Contender = Callable[[Merge, Path], Run]
TOUCHED = 6 << 30  # bytes of memory made ready before each run, or fewer for a small shape; what is written goes there
COMPLETE = 0.99  # of a model's bytes; a contender that wrote less has not merged


def choose_contenders(options: argparse.Namespace, mergekit: Path | None) -> dict[str, Contender]:
    chosen: dict[str, Contender] = {}
    for name in options.contenders:
        if name == "modelmerger":
            chosen[name] = partial(contenders.modelmerger, variant=Variant())
            for key in options.variants:
                chosen[f"{name}:{key}"] = partial(contenders.modelmerger, variant=contenders.VARIANTS[key])
        elif name == "cp":
            chosen[name] = contenders.copy
        elif name == "import-torch":
            chosen[name] = contenders.torch_import
        elif name == "bare":
            chosen[name] = contenders.bare
        elif name == "moving":
            chosen[name] = contenders.moving
        elif name.startswith("peft"):
            chosen[name] = partial(contenders.peft, method="svd" if name == "peft-svd" else "cat")
        elif mergekit is not None:
            dtype = "float32" if name == "mergekit-float32" else "bfloat16"
            chosen[name] = partial(contenders.mergekit, program=mergekit, dtype=dtype)
    return chosen


def rows(options: argparse.Namespace, shape: Shape) -> Iterator[tuple[str, list[int]]]:
    """The strategy of each merge of a shape, and the numbers of the models that it needs; 0 is the base."""
    for strategy in (name for name in options.strategies if name in STRATEGIES):
        method = METHODS[strategy]
        if not method.field or shape.name == options.shapes[0]:
            for count in [method.models] if method.models else [int(count) for count in options.models]:
                yield strategy, list(range(0 if method.base else 1, count + 1))
    yield from ((strategy, [0]) for strategy in options.strategies if strategy in ADAPTERS)


def choose_merges(options: argparse.Namespace, shape: Shape, skipped: list[str]) -> Iterator[Merge]:
    """The merges of one shape, the models of each ready when it comes; what the disk has no room for is added to
    `skipped`.
    """
    budget = int(options.disk_gb * 1e9)
    for strategy, numbers in rows(options, shape):
        if len(numbers) > model_limit(options.cache, shape, budget):
            room = (
                f"{(len(numbers) + 1) * shape.bytes / 1e9:.0f} GB, more than there is, or than {options.disk_gb:g} GB"
            )
            skipped.append(f"{shape.name} {strategy} with {len(numbers)} models on the disk and an output needs {room}")
            continue
        made = prepare_models(options.cache, shape, numbers, budget)
        models = tuple(made[number] for number in numbers if number)
        if strategy in ADAPTERS:
            adapters = prepare_adapters(options.cache, shape, made[0])
            models = tuple(adapters if strategy == "adapters" else adapters[:1])
        yield Merge(shape, strategy, models, made.get(0))


def takes_part(name: str, merge: Merge) -> bool:
    """PEFT merges adapters alone, mergekit full models; nothing is copied for an adapter; one adapter is folded in one
    way.

    The bare loop measures nothing before it merges.
    """
    if name.startswith("peft"):
        return merge.strategy == "adapters" or (merge.strategy == "fold" and name == "peft")
    if name == "moving":
        return merge.strategy in STRATEGIES
    if name == "bare":
        return merge.strategy in ("weighted", "task_arithmetic")
    if name in ("cp", "import-torch"):
        return merge.strategy != "adapters"
    return merge.strategy in STRATEGIES or name.startswith("modelmerger")


def run_once(contender: Contender, merge: Merge, scratch: Path, page_cache: str) -> tuple[measure.Measurement, str]:
    """One run, and what was wrong with it ("" if nothing)."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    run = contender(merge, scratch)
    os.sync()
    if page_cache == "warm":
        measure.read_through(merge.inputs)
    else:
        measure.evict(merge.inputs)
    measure.touch_memory(min(TOUCHED, 8 * merge.shape.bytes))
    found = measure.run(run.command, run.environment, scratch / "log")
    if found.status != 0:
        print(found.output, file=sys.stderr)
        return found, f"failed with exit status {found.status}"
    found = replace(found, unsynced=measure.sync([file for file in run.output.rglob("*") if file.is_file()]))
    written = size_of([run.output])
    if written < COMPLETE * run.bytes:
        return found, f"wrote {written} of {run.bytes} bytes"
    return found, ""


def measure_merge(merge: Merge, chosen: dict[str, Contender], options: argparse.Namespace, warm_up: bool) -> Result:
    inputs = sum(file.stat().st_size for file in merge.inputs)
    result = Result(
        merge.name,
        merge.shape.name,
        merge.strategy,
        len(merge.models),
        inputs,
        merge.output_bytes,
        {n: [] for n in chosen if takes_part(n, merge)},
    )
    for number in range(0 if warm_up else 1, options.rounds + 1):
        for name in list(result.runs):
            found, problem = run_once(chosen[name], merge, options.cache / "scratch", options.page_cache)
            label = f"round {number}" if number else "warm-up"
            print(f"{merge.name}: {name}: {label}: {problem or f'{found.wall:.2f} s'}", flush=True)
            if problem:
                result.failures[name] = problem
                del result.runs[name]
            elif number:
                result.runs[name].append(found)
                if merge.strategy == "ties" and number == options.rounds:
                    keep(options.cache, name)
    if merge.strategy == "ties":
        result.agreements = agreements(merge, options.cache, list(result.runs))
    return result


def keep(cache: Path, contender: str) -> None:
    """Keeps the last output, to be compared with those of others."""
    kept = cache / "kept" / contender
    shutil.rmtree(kept, ignore_errors=True)
    kept.parent.mkdir(exist_ok=True)
    (cache / "scratch" / "output").rename(kept)


def agreements(merge: Merge, cache: Path, contenders: Sequence[str]) -> dict[str, tuple[float, float]]:
    """What `agreement.py` finds between modelmerger and each mergekit, in a process of its own."""
    found: dict[str, tuple[float, float]] = {}
    for name in contenders if "modelmerger" in contenders else ():
        if name.startswith("mergekit"):
            inputs = [str(path) for path in (merge.base, *merge.models)]
            outputs = [str(cache / "kept" / one) for one in ("modelmerger", name)]
            command = [sys.executable, str(HERE / "agreement.py"), str(DENSITY), *inputs, "--", *outputs]
            found[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    shutil.rmtree(cache / "kept", ignore_errors=True)
    return found


def main(arguments: Sequence[str]) -> int:
    options = parse(__doc__ or "", arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    mergekit: Path | None = options.mergekit
    if mergekit is None and any(name.startswith("mergekit") for name in options.contenders):
        mergekit = prepare_mergekit(options.cache)
    described = machine.describe(options.cache, mergekit)
    chosen = choose_contenders(options, mergekit)
    skipped: list[str] = []
    settings = {"rounds": options.rounds, "page_cache": options.page_cache, "skipped": skipped}
    results: list[Result] = []
    for shape in (SHAPES[name] for name in options.shapes):
        for place, merge in enumerate(choose_merges(options, shape, skipped)):
            results.append(measure_merge(merge, chosen, options, warm_up=place == 0))
            write_reports(options.results, described, settings, results)
        remove_large(options.cache, shape)
    shutil.rmtree(options.cache / "scratch", ignore_errors=True)
    print(markdown(described, settings, results))
    print(f"written: {options.results}/latest.json, latest.md, latest.svg")
    return 1 if any(result.failures for result in results) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
