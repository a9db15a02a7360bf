"""Plan merges of very large models: how long, and in how much memory. The checkpoints are sparse files, headers and no
data.

python benchmarks/scale.py [--cache DIR] [--results FILE]
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import machine
import measure
from shapes import BYTES_PER_ELEMENT
from synthetic import header
from workplace import HERE

Entry = tuple[str, tuple[int, ...]]
MIB = 2**20


@dataclass(frozen=True)
class Large:
    """layers · (experts · 3 + 9) + 3 tensors. Bytes follow from the sizes; none is written."""

    name: str
    shards: int
    layers: int
    hidden: int
    intermediate: int
    experts: int = 1
    vocabulary: int = 128_256

    def tensors(self) -> Iterator[Entry]:
        hidden, keys = self.hidden, max(1, self.hidden // 8)
        yield "model.embed_tokens.weight", (self.vocabulary, hidden)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            yield f"{prefix}.input_layernorm.weight", (hidden,)
            yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
            for part, rows in (("q", hidden), ("k", keys), ("v", keys), ("o", hidden)):
                yield f"{prefix}.self_attn.{part}_proj.weight", (rows, hidden)
            for expert in range(self.experts):
                for part in ("gate", "up"):
                    yield f"{prefix}.mlp.experts.{expert}.{part}_proj.weight", (self.intermediate, hidden)
                yield f"{prefix}.mlp.experts.{expert}.down_proj.weight", (hidden, self.intermediate)
        yield "model.norm.weight", (hidden,)
        yield "lm_head.weight", (self.vocabulary, hidden)


MODELS = (
    Large("50,000 tensors in 500 shards", shards=500, layers=61, hidden=64, intermediate=32, experts=271),
    Large("a million tensors", shards=500, layers=100, hidden=8, intermediate=4, experts=3_331),
    Large("405B", shards=191, layers=126, hidden=16_384, intermediate=53_248),
    Large("1T, 384 experts", shards=400, layers=61, hidden=7_168, intermediate=2_048, experts=384),
)


def write(model: Large, directory: Path) -> None:
    """Write the checkpoint; `directory` appears when it is complete."""
    entries = list(model.tensors())
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weight_map = {}
    for number in range(model.shards):
        part = entries[number * len(entries) // model.shards : (number + 1) * len(entries) // model.shards]
        name = f"model-{number + 1:05}-of-{model.shards:05}.safetensors"
        content = header(part)
        size = sum(prod(shape) for _, shape in part) * BYTES_PER_ELEMENT
        with (partial / name).open("wb") as file:
            file.write(content)
            file.truncate(len(content) + size)
        weight_map |= dict.fromkeys((tensor for tensor, _ in part), name)
    (partial / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    partial.rename(directory)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=HERE / ".cache")
    parser.add_argument("--models", type=int, default=2, help="how many models are merged")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "scale.md")
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write:
        write(next(model for model in MODELS if model.name == options.write[0]), Path(options.write[1]))
        return 0
    rows = []
    for model in MODELS:
        root = options.cache.absolute() / "scale" / model.name.replace(" ", "-").replace(",", "")
        sources = [root / f"model-{number}" for number in range(options.models)]
        for source in sources:  # in another process: what this one held would count as the peak of its children
            if not source.exists():
                subprocess.run([sys.executable, __file__, "--write", model.name, str(source)], check=True)
        tensors = sum(1 for _ in model.tensors())
        config = root / "config.json"
        output = str(root / "merged")
        models = [{"path": str(source)} for source in sources]
        config.write_text(json.dumps({"strategy": "weighted", "models": models, "output_path": output}))
        found = measure.run((sys.executable, "-m", "modelmerger", "plan", str(config)), {}, root / "log")
        if found.status != 0:
            print(found.output, file=sys.stderr)
            return 1
        print(f"--- {model.name}\n{found.output}", flush=True)
        size = sum(file.stat().st_size for file in sources[0].glob("*.safetensors")) / 1e9
        figures = f"{found.wall:.2f} | {found.cpu:.2f} | {found.peak_resident / MIB:,.0f}"
        rows.append(f"| {model.name} | {tensors:,} | {model.shards} | {size:,.1f} | {figures} |")
    described = machine.describe(options.cache, None)
    lines = ["# Planning very large merges", ""]
    lines += [f"`modelmerger plan` of {options.models} models, whole processes, once; {described['cpu']}.", ""]
    lines += [
        "| model | tensors | shards | GB each | wall s | CPU s | peak MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text("\n".join([*lines, *rows]) + "\n")
    print(options.results.read_text())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
