"""What modelmerger, mergekit, FusionBench and PEFT make of the same models: rounding, NaN, and updates of adapters.

    python benchmarks/comparison.py [--mergekit MERGEKIT-YAML] [--fusionbench PYTHON]

Times and memory are the business of `run.py`. The models are near copies of the Arabic base that ships, in bfloat16.
Exact is what float64 gives. Tools that are not given are left out. Writes `results/comparison.md`.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
BASE = HERE.parent / "examples/dialects/base"
ADAPTERS = HERE.parent / "examples/dialects/adapters"
WEIGHTS = 0.625, 0.375  # binary fractions, so that what is exact does not hang on how a decimal is read
LAMBDA = 0.6875
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Place:
    """A folder with models, and the programs."""

    folder: Path
    mergekit: str | None
    fusionbench: str | None

    @property
    def models(self) -> list[Path]:
        return [self.folder / "a", self.folder / "b"]


def make_models(folder: Path) -> None:
    """`base`, and `a` and `b`, which differ from it as fine-tunes do; `nan` is `b` with one NaN."""
    weights = load_file(BASE / "model.safetensors")
    for number, name in enumerate(("base", "a", "b", "nan")):
        shutil.copytree(BASE, folder / name)
        noise = torch.Generator().manual_seed(min(number, 2))
        moved = {
            key: (value.float() + torch.randn(value.shape, generator=noise) * 2e-3 * (number > 0)).to(value.dtype)
            for key, value in weights.items()
        }
        if name == "nan":
            moved["model.layers.1.mlp.up_proj.weight"][3, 5] = math.nan
        save_file(moved, folder / name / "model.safetensors", metadata={"format": "pt"})


def commands(place: Place, strategy: str, models: list[Path], output: Path) -> Iterator[tuple[str, list[str]]]:
    """Each tool with the command that does the merge."""
    base = place.folder / "base"
    weighted = strategy == "weighted"
    ours = {
        "strategy": strategy,
        "models": [
            {"path": str(m), **({"weight": w} if weighted else {})} for m, w in zip(models, WEIGHTS, strict=True)
        ],
        "base_model": str(base),
        "options": {} if weighted else {"scaling_factor": LAMBDA},
    }
    file = written(place.folder / "ours.json", ours)
    yield "modelmerger", [sys.executable, "-m", "modelmerger", "merge", file, "--output", str(output)]
    if place.mergekit:
        for dtype in ("bfloat16", "float32"):
            theirs = {
                "merge_method": "linear" if weighted else strategy,
                "models": [
                    {"model": str(m), "parameters": {"weight": w if weighted else 1.0}}
                    for m, w in zip(models, WEIGHTS, strict=True)
                ],
                "parameters": {"normalize": True} if weighted else {"normalize": False, "lambda": LAMBDA},
                "dtype": dtype,
                "out_dtype": "bfloat16",
                **({} if weighted else {"base_model": str(base)}),
            }
            file = written(place.folder / "theirs.yaml", theirs)
            yield f"mergekit, {dtype}", [place.mergekit, "--quiet", file, str(output)]
    if place.fusionbench:
        numbers = ",".join(map(str, WEIGHTS)) if weighted else str(LAMBDA)
        program = [place.fusionbench, str(HERE / "by_fusionbench.py")]
        yield "FusionBench", [*program, strategy, str(output), numbers, str(base), *map(str, models)]


def written(path: Path, config: Mapping[str, object]) -> str:
    path.write_text(json.dumps(config))
    return str(path)


def run(command: list[str], output: Path) -> tuple[int, str, Tensors]:
    """The exit status, the last line that was printed, and the weights that were written, if any."""
    shutil.rmtree(output, ignore_errors=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = sorted(output.glob("*.safetensors"))
    said = (done.stderr.strip() or done.stdout.strip() or "-").splitlines()[-1]
    return done.returncode, said, {name: tensor for file in files for name, tensor in load_file(file).items()}


def exact(place: Place, strategy: str) -> Tensors:
    """The merge in float64."""
    base, *models = (load_file(path / "model.safetensors") for path in (place.folder / "base", *place.models))
    if strategy == "weighted":
        return {k: sum(w * m[k].double() for w, m in zip(WEIGHTS, models, strict=True)) for k in base}
    return {k: base[k].double() + LAMBDA * sum(m[k].double() - base[k].double() for m in models) for k in base}


def rounding(found: Tensors, wanted: Tensors, inputs: list[Tensors]) -> str:
    """How many elements are the exact ones rounded once, and the largest error in units in the last place.

    The unit is that of the largest number that an element is made of, or of the element itself if that is larger.
    """
    equal = elements = 0
    worst = 0.0
    for name, tensor in wanted.items():
        got = found[name]
        nearest = tensor.to(torch.bfloat16)
        equal += int((got == nearest).sum())
        elements += got.numel()
        largest = torch.stack([tensor.abs(), *(one[name].double().abs() for one in inputs)]).amax(0)
        unit = torch.exp2(torch.floor(torch.log2(largest.clamp_min(2.0**-126))) - 7)
        worst = max(worst, float(((got.double() - tensor).abs() / unit).max()))
    return f"{100 * equal / elements:.3f} % | {worst:.2f}"


def updates(directory: Path) -> Tensors:
    """s·B·A of every module of a LoRA adapter, in float64."""
    config = json.loads((directory / "adapter_config.json").read_text())
    factors = {k: v.double() for k, v in load_file(directory / "adapter_model.safetensors").items()}
    ranks = config.get("rank_pattern") or {}
    alphas = config.get("alpha_pattern") or {}
    found = {}
    for name, down in factors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            key = module.removeprefix("base_model.model.")
            pattern = {k: v for k, v in (ranks | alphas).items() if key.endswith(k)}
            rank = next((v for k, v in ranks.items() if k in pattern), config["r"])
            alpha = next((v for k, v in alphas.items() if k in pattern), config["lora_alpha"])
            scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
            found[module] = scale * factors[f"{module}.lora_B.weight"] @ down
    return found


def adapters(place: Place) -> Iterator[tuple[str, str]]:
    """How far each merged adapter is from the exact sum of the updates."""
    sources = [ADAPTERS / "egyptian", ADAPTERS / "gulf"]
    first, second = map(updates, sources)
    wanted = {k: WEIGHTS[0] * first[k] + WEIGHTS[1] * second[k] for k in first}
    norm = math.sqrt(sum(float((v**2).sum()) for v in wanted.values()))

    def line(found: Tensors) -> str:
        return f"{math.sqrt(sum(float(((found[k] - v) ** 2).sum()) for k, v in wanted.items())) / norm:.2g}"

    base, output = place.folder / "base", place.folder / "adapter"
    for method in ("linear", "svd"):
        ours = {
            "strategy": "weighted",
            "models": [{"path": str(path), "weight": w} for path, w in zip(sources, WEIGHTS, strict=True)],
            "peft_config": {"merge_adapters": True, "base_model_path": str(base)},
            "options": {"merge_method": method},
        }
        file = written(place.folder / "ours.json", ours)
        run([sys.executable, "-m", "modelmerger", "merge", file, "--output", str(output)], output)
        yield f"modelmerger, `{method}`", line(updates(output))
    for method in ("cat", "svd", "linear"):
        numbers = ",".join(map(str, WEIGHTS))
        program = [sys.executable, str(HERE / "by_peft.py"), method, str(output), str(base), numbers]
        run([*program, *map(str, sources)], output)
        yield f"PEFT, `{method}`", line(updates(output / "merged"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mergekit")
    parser.add_argument("--fusionbench")
    given = parser.parse_args()
    lines = ["# Comparison", "", "Made by `benchmarks/comparison.py`; bfloat16 in, bfloat16 out, exact by float64.", ""]
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name), given.mergekit, given.fusionbench)
        make_models(place.folder)
        output = place.folder / "merged"
        lines += [
            "| merge | by | exact, rounded once | largest error, units in the last place |",
            "|---|---|---:|---:|",
        ]
        for strategy in ("weighted", "task_arithmetic"):
            wanted = exact(place, strategy)
            inputs = [load_file(path / "model.safetensors") for path in place.models]
            for tool, command in commands(place, strategy, place.models, output):
                status, said, found = run(command, output)
                lines.append(
                    f"| {strategy} | {tool} | {rounding(found, wanted, inputs) if status == 0 else f'ended with an error: {said} |'} |"
                )
        lines += ["", "| one NaN among the inputs | exit status | NaN written |", "|---|---:|---:|"]
        with_nan = [place.folder / "a", place.folder / "nan"]
        for tool, command in commands(place, "weighted", with_nan, output):
            status, _, found = run(command, output)
            written_nan = sum(int(tensor.isnan().sum()) for tensor in found.values())
            lines.append(f"| {tool} | {status} | {written_nan if found else 'nothing written'} |")
        lines += ["", "| two adapters into one | ‖written − exact‖ / ‖exact‖ of the updates |", "|---|---:|"]
        lines += [f"| {tool} | {error} |" for tool, error in adapters(place)]
    text = "\n".join([*lines, ""])
    (HERE / "results/comparison.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
