"""Record what mergekit makes of small models, as data that the strategy tests compare with.

    python tests/strategies/record_mergekit.py PATH/TO/mergekit-yaml tests/strategies/data/mergekit

mergekit runs as a program of its own, in an environment of its own; nothing of it is imported here. Each recording is
checked against the closed form in float64, and the run fails when one of them is off by more than float32 explains.
The README.md of the data folder describes the files.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
Case = dict[str, Any]

HIDDEN, KEYS, INNER, VOCABULARY = 8, 4, 12, 24
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
LAYER = "model.layers.0."
SHAPES: Mapping[str, tuple[tuple[int, ...], torch.dtype]] = {
    "model.embed_tokens.weight": ((VOCABULARY, HIDDEN), BF16),
    LAYER + "self_attn.q_proj.weight": ((HIDDEN, HIDDEN), F16),
    LAYER + "self_attn.k_proj.weight": ((KEYS, HIDDEN), F32),
    LAYER + "self_attn.v_proj.weight": ((KEYS, HIDDEN), BF16),
    LAYER + "self_attn.o_proj.weight": ((HIDDEN, HIDDEN), F16),
    LAYER + "mlp.gate_proj.weight": ((INNER, HIDDEN), F32),
    LAYER + "mlp.up_proj.weight": ((INNER, HIDDEN), BF16),
    LAYER + "mlp.down_proj.weight": ((HIDDEN, INNER), F16),
    LAYER + "input_layernorm.weight": ((HIDDEN,), F32),
    LAYER + "post_attention_layernorm.weight": ((HIDDEN,), BF16),
    "model.norm.weight": ((HIDDEN,), F16),
    "lm_head.weight": ((VOCABULARY, HIDDEN), F32),
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_attention_heads": HIDDEN // KEYS, "num_key_value_heads": 1, "num_hidden_layers": 1, "vocab_size": VOCABULARY,
    "max_position_embeddings": 32, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "torch_dtype": "float32",
}  # fmt: skip
LARGEST_COSINE = 0.9995  # above it mergekit interpolates along the chord, which is another formula
TOLERANCE = 1e-6  # of the largest magnitude in a tensor; a few float32 roundings


def noise(generator: torch.Generator, scale: float) -> Tensors:
    return {name: scale * torch.randn(shape, generator=generator) for name, (shape, _) in SHAPES.items()}


def stored(values: Tensors) -> Tensors:
    return {name: value.to(SHAPES[name][1]).contiguous() for name, value in values.items()}


def make_models() -> dict[str, Tensors]:
    """Three unrelated models, a model turned away from the first by another angle per tensor, a base and fine-tunes."""
    generator = torch.Generator().manual_seed(2024)
    models = {name: noise(generator, 0.3) for name in ("first", "second", "third")}
    other = noise(generator, 0.3)
    shares = torch.linspace(-0.9, 0.95, len(SHAPES)).tolist()
    models["turned"] = {
        name: 1.5 * (share * models["first"][name] + math.sqrt(1 - share * share) * other[name])
        for name, share in zip(SHAPES, shares, strict=True)
    }
    models["base"] = noise(generator, 0.3)
    for name in ("tune_a", "tune_b", "tune_c"):
        step = noise(generator, 0.05)
        models[name] = {key: models["base"][key] + step[key] for key in SHAPES}
    return {name: stored(values) for name, values in models.items()}


def case(name: str, strategy: str, models: list[Case], options: Case, base_model: str | None = None) -> Case:
    models = [{**model, "path": source(model["path"])} for model in models]
    base = None if base_model is None else source(base_model)
    return {
        "name": name,
        "strategy": strategy,
        "base_model": base,
        "models": models,
        "options": {**options, "torch_dtype": "float32"},
        "expected": f"expected/{name}.safetensors",
    }


def source(name: str) -> str:
    return f"models/{name}.safetensors"


def weighted(paths: str, weights: list[float], *signs: str) -> list[Case]:
    models: list[Case] = [{"path": path, "weight": value} for path, value in zip(paths.split(), weights, strict=True)]
    for model, operation in zip(models, signs, strict=False):
        model["operation"] = operation
    return models


def make_cases() -> Iterator[Case]:
    three = "first second third"
    yield case("linear_normalized", "weighted", weighted(three, [0.5, 0.3, 0.9]), {"normalize_weights": True})
    yield case("linear_raw", "weighted", weighted(three, [0.5, 0.3, 0.9]), {"normalize_weights": False})
    yield case("linear_normalized_negative", "weighted", weighted(three, [1.5, -0.7, 0.4]), {"normalize_weights": True})
    yield case("linear_raw_negative", "weighted", weighted(three, [1.5, -0.7, 0.4]), {"normalize_weights": False})
    tunes = "tune_a tune_b tune_c"
    for name, models, scale in (
        ("task_positive", weighted(tunes, [0.6, 0.3, 0.8]), 1.0),
        ("task_positive_scaled", weighted(tunes, [0.6, 0.3, 0.8]), 0.35),
        ("task_one_model", weighted("tune_a", [1.0]), 1.0),
        ("task_negative", weighted("tune_a tune_b", [0.7, -0.5]), 1.0),
        ("task_negative_scaled", weighted("tune_a tune_b", [0.7, -0.5]), 1.8),
        ("task_subtract", weighted(tunes, [0.9, 0.4, 0.6], "add", "subtract", "add"), 0.5),
    ):
        yield case(name, "task_arithmetic", models, {"scaling_factor": scale}, "base")
    for second, suffix in (("second", ""), ("turned", "_turned")):
        for t in (0.0, 0.25, 0.5, 0.9, 1.0):
            options = {"interpolation_factor": t, "normalize_before_slerp": False}
            yield case(f"slerp_{t:g}{suffix}", "slerp", [{"path": "first"}, {"path": second}], options)


def signed_weight(model: Case) -> float:
    return -abs(model["weight"]) if model.get("operation") == "subtract" else float(model["weight"])


def mergekit_config(entry: Case, directories: Path) -> Case:
    """The same merge in mergekit's words."""

    def directory(path: str) -> str:
        return str(directories / Path(path).stem)

    config: Case = {"dtype": "float32", "models": [{"model": directory(model["path"])} for model in entry["models"]]}
    if entry["strategy"] == "slerp":
        parameters = {"t": entry["options"]["interpolation_factor"]}
        return {**config, "merge_method": "slerp", "base_model": config["models"][0]["model"], "parameters": parameters}
    for ours, theirs in zip(entry["models"], config["models"], strict=True):
        theirs["parameters"] = {"weight": signed_weight(ours)}
    if entry["strategy"] == "weighted":
        return {**config, "merge_method": "linear", "parameters": {"normalize": entry["options"]["normalize_weights"]}}
    parameters = {"normalize": False, "lambda": entry["options"]["scaling_factor"]}
    base = directory(entry["base_model"])
    return {**config, "merge_method": "task_arithmetic", "base_model": base, "parameters": parameters}


def closed_form(entry: Case, name: str, models: dict[str, Tensors]) -> torch.Tensor:
    def exact(path: str) -> torch.Tensor:
        return models[Path(path).stem][name].double()

    tensors = [exact(model["path"]) for model in entry["models"]]
    options = entry["options"]
    if entry["strategy"] == "slerp":
        first, second = tensors
        t = options["interpolation_factor"]
        cosine = float((first * second).sum() / (first.norm() * second.norm()))
        if abs(cosine) > LARGEST_COSINE:
            raise SystemExit(f"{entry['name']}: {name}: |cosine| {abs(cosine)} is above {LARGEST_COSINE}")
        angle = math.acos(cosine)
        return (math.sin((1 - t) * angle) * first + math.sin(t * angle) * second) / math.sin(angle)
    weights = [signed_weight(model) for model in entry["models"]]
    if entry["strategy"] == "weighted":
        total = sum(weights) if options["normalize_weights"] else 1.0
        return torch.stack([w * tensor for w, tensor in zip(weights, tensors, strict=True)]).sum(0) / total
    base, scale = exact(entry["base_model"]), float(options["scaling_factor"])
    steps = torch.stack([w * (tensor - base) for w, tensor in zip(weights, tensors, strict=True)])
    return base + scale * steps.sum(0)


def largest_error(entry: Case, recorded: Tensors, models: dict[str, Tensors]) -> float:
    """Largest error of any element, relative to the largest magnitude in its tensor."""
    if recorded.keys() != SHAPES.keys():
        raise SystemExit(f"{entry['name']}: recorded {sorted(recorded)}, expected {sorted(SHAPES)}")
    worst = 0.0
    for name, got in recorded.items():
        exact = closed_form(entry, name, models)
        if got.dtype != F32 or got.shape != exact.shape:
            raise SystemExit(f"{entry['name']}: {name}: recorded {got.dtype} {tuple(got.shape)}")
        worst = max(worst, float((got.double() - exact).abs().max() / exact.abs().max()))
    return worst


def run_mergekit(program: str, config: Case, scratch: Path) -> Path:
    """Run mergekit, return its one weights file."""
    (scratch / "merge.yaml").write_text(yaml.safe_dump(config))
    command = [program, "--quiet", "--no-copy-tokenizer", "--no-write-model-card"]
    output = scratch / "output"
    shutil.rmtree(output, ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, str(scratch / "merge.yaml"), str(output)], check=True, env=environment)
    (weights,) = output.glob("*.safetensors")
    return weights


def version_of(program: str) -> str:
    """The version of mergekit beside the interpreter that runs `program`."""
    python = Path(program).absolute().parent / "python"
    question = "import importlib.metadata; print(importlib.metadata.version('mergekit'))"
    return subprocess.run([python, "-c", question], check=True, capture_output=True, text=True).stdout.strip()


def record(program: str, folder: Path) -> None:
    models, cases = make_models(), list(make_cases())
    for part in ("models", "expected"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for model, tensors in models.items():
            (scratch / model).mkdir()
            (scratch / model / "config.json").write_text(json.dumps(CONFIG))
            save_file(tensors, folder / source(model), metadata={"format": "pt"})
            shutil.copyfile(folder / source(model), scratch / model / "model.safetensors")
        for entry in cases:
            weights = run_mergekit(program, mergekit_config(entry, scratch), scratch)
            shutil.copyfile(weights, folder / entry["expected"])
            error = largest_error(entry, load_file(folder / entry["expected"]), models)
            print(f"{entry['name']:32} largest relative error {error:.2e}", flush=True)
            if not error <= TOLERANCE:
                raise SystemExit(f"{entry['name']}: error {error} against the closed form is above {TOLERANCE}")
    recorded = {"mergekit": version_of(program), "cases": cases}
    (folder / "cases.json").write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: record_mergekit.py MERGEKIT_YAML_CLI OUT_DIR")
    record(sys.argv[1], Path(sys.argv[2]))
