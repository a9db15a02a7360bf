"""What is compared: each contender turns a merge into the command that carries it out."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from methods import METHODS, SCALING_FACTOR
from shapes import Shape

BY_PEFT = Path(__file__).resolve().parent / "by_peft.py"
BARE = Path(__file__).resolve().parent / "bare.py"
MOVING = Path(__file__).resolve().parent / "moving.py"
WITHOUT = Path(__file__).resolve().parent / "without.py"


@dataclass(frozen=True)
class Merge:
    """One merge of `models` (and `base`), each a directory with a checkpoint of `shape`."""

    shape: Shape
    strategy: str
    models: tuple[Path, ...]
    base: Path | None = None

    @property
    def name(self) -> str:
        if self.strategy == "adapters":
            return f"{self.shape.name} {len(self.models)} adapters into one"
        if self.strategy == "fold":
            return f"{self.shape.name} adapter into its base"
        base = "base + " if self.base else ""
        return f"{self.shape.name} {self.strategy} ({base}{len(self.models)} models)"

    @property
    def weights(self) -> tuple[float, ...]:
        """Unequal, so that no contender can treat them as a mean; their sum is 1."""
        total = sum(range(1, len(self.models) + 1))
        return tuple((place + 1) / total for place in range(len(self.models)))

    @property
    def output_bytes(self) -> int:
        """What must be written: a model, or an adapter of the rank that the adapters have together, as float32."""
        if self.strategy != "adapters":
            return self.shape.bytes
        return 2 * sum(file.stat().st_size for model in self.models for file in model.glob("*.safetensors"))

    @property
    def inputs(self) -> tuple[Path, ...]:
        directories = self.models if self.base is None else (self.base, *self.models)
        return tuple(file for directory in directories for file in sorted(directory.glob("*.safetensors")))


@dataclass(frozen=True)
class Run:
    command: tuple[str, ...]
    environment: Mapping[str, str]
    output: Path
    bytes: int
    """What must be written of weights, or no merge was made."""


@dataclass(frozen=True)
class Variant:
    """modelmerger run otherwise than usual: with other options, with one of its costs left out by without.py, or on one
    core.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    without: str = ""
    one_core: bool = False


# `run.py --variants NAME,…` measures each in turn with the usual run, as `modelmerger:NAME`.
VARIANTS: dict[str, Variant] = {
    "no-digests": Variant(without="digests"),
    "no-fsync": Variant(without="fsync"),
    "no-finite-check": Variant(without="finite-check"),
    "no-memory": Variant({"memory": 0}),
    "low-memory": Variant({"low_memory_mode": True}),
    "sequential-loading": Variant({"sequential_loading": True}),
    "no-parallel-loading": Variant({"parallel_loading": False}),
    "torch-compile": Variant({"torch_compile": True}),
    "geometry": Variant({"geometry": True}),
    "buffered": Variant({"io": "buffered"}),
    "direct": Variant({"io": "direct"}),
    "one-core": Variant(one_core=True),
    "one-core-no-digests": Variant(without="digests", one_core=True),
}


def modelmerger(merge: Merge, scratch: Path, variant: Variant) -> Run:
    output = scratch / "output"
    strategy = merge.strategy if merge.strategy in METHODS else "weighted"
    method = METHODS[strategy]
    options = {**method.ours, **variant.options}
    models: list[dict[str, Any]] = [{"path": str(path)} for path in merge.models]
    if method.weighted:
        for model, weight in zip(models, merge.weights, strict=True):
            model["weight"] = weight
    config: dict[str, Any] = {"strategy": strategy, "models": models, "options": options}
    if merge.base is not None:
        config["base_model"] = str(merge.base)
    if merge.strategy == "adapters":
        config["peft_config"] = {"merge_adapters": True}
    file = write_config(scratch / "modelmerger.json", {**config, "output_path": str(output)})
    program = (str(WITHOUT), variant.without) if variant.without else ("-m", "modelmerger")
    where = ("taskset", "-c", "0") if variant.one_core else ()
    return Run((*where, sys.executable, *program, "merge", str(file)), {}, output, merge.output_bytes)


def mergekit(merge: Merge, scratch: Path, program: Path, dtype: str) -> Run:
    """mergekit with its default flags, but for the tokenizer, which these models do not have.

    `dtype` is what it computes in: bfloat16, as in its own examples, or float32, as modelmerger does. It writes
    bfloat16.
    """
    output = scratch / "output"
    models: list[dict[str, Any]] = [{"model": str(path)} for path in merge.models]
    method = METHODS[merge.strategy]
    base = merge.models[0] if merge.strategy == "slerp" else merge.base
    if method.weighted:
        for model, weight in zip(models, merge.weights, strict=True):
            model["parameters"] = {"weight": weight}
    name = method.mergekit or merge.strategy
    config: dict[str, Any] = {"merge_method": name, "models": models, "parameters": {**method.theirs}, "dtype": dtype}
    if dtype != "bfloat16":
        config["out_dtype"] = "bfloat16"
    if base is not None:
        config["base_model"] = str(base)
    file = write_config(scratch / "mergekit.yaml", config)
    command = (str(program), "--quiet", "--no-copy-tokenizer", str(file), str(output))
    return Run(command, {"HF_HUB_OFFLINE": "1"}, output, merge.output_bytes)


def peft(merge: Merge, scratch: Path, method: str) -> Run:
    """PEFT: its exact sum (`cat`) or its best approximation of the adapters' rank (`svd`); or `merge_and_unload`,
    and saving.
    """
    output = scratch / "output"
    method = method if merge.strategy == "adapters" else "fold"
    shares = {"fold": 1, "cat": 2, "svd": 2 * len(merge.models)}  # it writes the adapters' own dtype, half of float32
    weights = ",".join(f"{weight:.6f}" for weight in merge.weights)
    command = (str(BY_PEFT), method, str(output), str(merge.base), weights, *map(str, merge.models))
    return Run(
        (sys.executable, *command),
        {"HF_HUB_OFFLINE": "1"},
        output,
        merge.output_bytes // shares[method],
    )


def copy(merge: Merge, scratch: Path) -> Run:
    """The floor: copy one of the models, or the base of the adapters, and wait until it is on the device."""
    source = merge.base if merge.strategy == "fold" else merge.models[0]
    output = scratch / "output"
    script = 'cp -r --reflink=never "$0" "$1" && sync "$1"/* "$1"'
    return Run(("/bin/sh", "-c", script, str(source), str(output)), {}, output, merge.output_bytes)


def bare(merge: Merge, scratch: Path) -> Run:
    """The loop of a merge without all that makes it one, for strategies whose coefficients are known beforehand."""
    output = scratch / "output"
    coefficients, models = list(merge.weights), list(merge.models)
    if merge.base is not None:
        coefficients = [SCALING_FACTOR * weight for weight in coefficients]
        coefficients.append(1 - sum(coefficients))
        models.append(merge.base)
    pairs = [text for c, model in zip(coefficients, models, strict=True) for text in (repr(c), str(model))]
    return Run((sys.executable, str(BARE), str(output), *pairs), {}, output, merge.output_bytes)


def moving(merge: Merge, scratch: Path) -> Run:
    """The bytes of a merge, read and written past the page cache, and nothing done with them."""
    output = scratch / "output"
    sources = map(str, (*merge.models, *([merge.base] if merge.base is not None else [])))
    return Run((sys.executable, str(MOVING), str(output), *sources), {}, output, merge.output_bytes)


def torch_import(_: Merge, scratch: Path) -> Run:
    """What any merge with torch pays before it begins."""
    return Run((sys.executable, "-c", "import torch"), {}, scratch / "output", 0)


def write_config(path: Path, config: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(config, indent=1))
    return path
