"""Memory and time as `modelmerger plan` says them, beside those of the merge: for each strategy, and two plugins.

    python benchmarks/planned.py            0.5B; writes benchmarks/results/planned.{json,md}

Planned is right where it is at least what was measured, and at most 15 % more.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import machine
import measure
from modelmerger import Traits
from options import some_of
from shapes import SHAPES, Shape
from workplace import HERE, prepare_adapters, prepare_models

MIB = 1 << 20
STRATEGIES = "modelmerger.strategies"
PLUGINS = HERE / "strategies"
MOST = 1.15  # times what was measured


def built_in() -> list[tuple[str, Traits, type | None]]:
    """The strategies of the package, by name, with their options."""
    found = [entry for entry in entry_points(group=STRATEGIES) if entry.dist and entry.dist.name == "modelmerger"]
    loaded = {entry.name: entry.load() for entry in found}
    return [(name, loaded[name].traits, getattr(loaded[name], "Options", None)) for name in sorted(loaded)]


def config_of(name: str, traits: Traits, models: Sequence[str], base: str) -> dict[str, Any]:
    """A merge of two models by a strategy, or of one where it takes no more; its options are the defaults."""
    paths = models[: traits.models[1] or len(models)]
    entries: list[dict[str, Any]] = [{"path": path} for path in paths]
    if traits.weights and len(entries) > 1:
        entries[-1]["weight"] = 0.5
    return {"strategy": name, "models": entries} | ({"base_model": base} if traits.wants_base else {})


def merges(cache: Path, shape: Shape, budget: int) -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
    """What each merge is called, its config, and what the command line says beside it."""
    made = prepare_models(cache, shape, range(3), budget)
    adapters = prepare_adapters(cache, shape, made[0])
    base, models = str(made[0]), [{"path": str(made[number]), "weight": 0.5} for number in (1, 2)]
    for name, traits, _ in built_in():
        yield name, config_of(name, traits, [model["path"] for model in models], base), ()
    unweighted = [{"path": model["path"]} for model in models]
    folded = {"models": [{"path": str(adapters[0])}], "base_model": base}
    yield "weighted, direct", {"strategy": "weighted", "models": models, "options": {"io": "direct"}}, ()
    yield "slerp, direct", {"strategy": "slerp", "models": unweighted, "options": {"io": "direct"}}, ()
    yield "weighted, geometry", {"strategy": "weighted", "models": models, "options": {"geometry": True}}, ()
    yield "weighted, .bin", {"strategy": "weighted", "models": models, "options": {"use_safetensors": False}}, ()
    yield "weighted, low memory", {"strategy": "weighted", "models": models, "options": {"low_memory_mode": True}}, ()
    yield "adapter into its base", {"strategy": "weighted", **folded}, ()
    together = {"models": [{"path": str(path)} for path in adapters], "peft_config": {"merge_adapters": True}}
    yield "four adapters into one", {"strategy": "weighted", "base_model": base, **together}, ()
    for name, said, listed in (("spectral", "whole tensors", models), ("median", "elementwise", unweighted)):
        plugin = "--plugin", str(PLUGINS / f"{name}.py")
        yield f"{name} (plugin, {said})", {"strategy": name, "models": listed}, plugin


def run(cache: Path, config: dict[str, Any], told: tuple[str, ...]) -> dict[str, Any]:
    """Planned and measured bytes and seconds of one merge."""
    scratch = cache / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    file = scratch / "merge.json"
    options = {"io": "buffered", **config.get("options", {})}  # whatever the page cache holds of the inputs
    file.write_text(json.dumps({**config, "options": options, "output_path": str(scratch / "merged")}))
    program = (sys.executable, "-m", "modelmerger")
    log = scratch / "plan.json"
    planning = measure.run((*program, "plan", str(file), "--json", *told), {}, log)
    merging = measure.run((*program, "merge", str(file), *told), {}, scratch / "log")
    for found in (planning, merging):
        if found.status != 0:
            raise SystemExit(found.output)
    plan = json.loads(log.read_text())
    return {
        "tried": plan["tried"],
        "planned_bytes": plan["memory"],
        "measured_bytes": merging.peak_resident,
        "parts": plan["memory_parts"],
        "planned_seconds": plan["outlook"]["seconds"],
        "measured_seconds": merging.wall,
        "planning_seconds": planning.wall,
    }


def row(name: str, found: dict[str, Any]) -> str:
    planned, measured = found["planned_bytes"], found["measured_bytes"]
    verdict = "" if measured <= planned <= MOST * measured else " **out of bounds**"
    memory = f"{planned / MIB:,.0f} | {measured / MIB:,.0f} | {planned / measured:.2f}{verdict}"
    return f"| {name} | {memory} | {found['planned_seconds']:.1f} | {found['measured_seconds']:.1f} |"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=some_of(SHAPES), default=["0.5B"], help=",".join(SHAPES))
    parser.add_argument("--cache", type=Path, default=HERE / ".cache")
    parser.add_argument("--disk-gb", type=float, default=40)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--only", default="", help="merges whose name begins so")
    options = parser.parse_args(arguments)
    cache = options.cache.absolute()
    results: dict[str, dict[str, Any]] = {}
    for shape in (SHAPES[name] for name in options.shapes):
        for name, config, told in merges(cache, shape, int(options.disk_gb * 1e9)):
            if name.startswith(options.only):
                results[f"{shape.name} {name}"] = found = run(cache, config, told)
                print(row(f"{shape.name} {name}", found), found["parts"], flush=True)
    shutil.rmtree(cache / "scratch", ignore_errors=True)
    described = machine.describe(cache, None)
    lines = ["# Planned and measured", ""]
    lines += [f"`modelmerger plan`, and then the merge, whole processes, once; {described['cpu']}."]
    lines += ["All go through the page cache (`io: buffered`), but those that are called direct.", ""]
    lines += [
        "| merge | planned MiB | measured MiB | ratio | planned s | measured s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [row(name, found) for name, found in results.items()]
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "planned.json").write_text(
        json.dumps({"machine": described, "merges": results}, indent=1) + "\n"
    )
    (options.results / "planned.md").write_text("\n".join(lines) + "\n")
    wrong = [found for found in results.values() if "out of bounds" in row("", found)]
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
