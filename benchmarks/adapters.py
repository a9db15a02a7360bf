"""Write synthetic LoRA adapters for a shape: rank 16 on every matrix of the layers, in bfloat16, with an
adapter_config.json.

    python benchmarks/adapters.py SHAPE NUMBER BASE DIRECTORY

A is of the scale that training starts it with; B is a tenth of it. BASE is what the adapter says it was trained on.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from shapes import SHAPES, Shape

RANK, ALPHA = 16, 32
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_adapter(shape: Shape, number: int, base: Path, directory: Path) -> None:
    """Write the adapter; `directory` appears when it is complete."""
    random = np.random.default_rng(number)
    tensors = {}
    for name, dimensions in shape.tensors():
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module.rpartition(".")[2] in TARGETS:
            out, into = dimensions
            sizes = {"A": (RANK, into), "B": (out, RANK)}
            for side, size in sizes.items():
                scale = into**-0.5 * (1.0 if side == "A" else 0.1)
                values = torch.from_numpy(random.standard_normal(size, dtype=np.float32) * np.float32(scale))
                tensors[f"base_model.model.{module}.lora_{side}.weight"] = values.bfloat16()
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": TARGETS,
        "inference_mode": True,
    }
    (partial / "adapter_config.json").write_text(json.dumps(config, indent=2))
    partial.rename(directory)


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] not in SHAPES:
        raise SystemExit(f"usage: adapters.py {{{','.join(SHAPES)}}} NUMBER BASE DIRECTORY")
    write_adapter(SHAPES[sys.argv[1]], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
