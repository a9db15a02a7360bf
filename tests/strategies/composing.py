"""Strategies that speak by composition alone, as anyone could write them."""

STACK = '''
"""Depth up-scaling: the layers of the first model, then those of the next; all else is the first model's.

Kim et al. 2023, "SOLAR 10.7B", https://arxiv.org/abs/2312.15166, section 2.
"""

import re

from modelmerger import Composition, Donor, TensorSelection, Traits, hookimpl

traits = Traits(models=(2, None))
LAYER = re.compile(r"(.*\\.layers\\.)(\\d+)(\\..*)")


@hookimpl
def compose_model(checkpoints, settings):
    models = checkpoints[: len(settings.models)]
    first, depth = models[0], 0
    selected = {name: (first, name) for name in first.tensors if not LAYER.fullmatch(name)}
    for model in models:
        found = {name: match for name in model.tensors if (match := LAYER.fullmatch(name))}
        for name, match in found.items():
            selected[f"{match[1]}{depth + int(match[2])}{match[3]}"] = model, name
        depth += 1 + max(int(match[2]) for match in found.values())
    config = {**(first.donor.config or {}), "num_hidden_layers": depth}
    if "layer_types" in config:
        config["layer_types"] = [kind for model in models for kind in model.donor.config["layer_types"]]
    return Composition(TensorSelection("the stack", selected, Donor(config=config)))
'''
TASK_VECTOR = '''
"""The task vector θ − θ_base, in float32, as files of its own kind."""

import json

import torch
from modelmerger import Checkpoint, Composition, TensorInfo, Traits, hookimpl, read_elements

traits = Traits(models=(1, 1), needs_base=True)


class Difference(Checkpoint):
    def __init__(self, model, base):
        self.name, self.pair = "the task vector", (model, base)
        self.tensors = {name: TensorInfo("F32", info.shape) for name, info in base.tensors.items()}
        self.files = (*model.files, *base.files)

    def made_of(self, tensor):
        return [(model, tensor) for model in self.pair]

    def read(self, tensor, start, stop, buffer):
        ours, theirs = (read_elements(model, tensor, start, stop).float() for model in self.pair)
        torch.frombuffer(buffer, dtype=torch.float32).copy_(ours - theirs)


@hookimpl
def compose_model(checkpoints):
    model, base = checkpoints
    told = json.dumps({"of": model.name, "from": base.name}).encode()
    return Composition(
        Difference(model, base), writes="task vector", stem="task_vector", sharded=False, documents={"task_vector.json": told}
    )
'''
EXTRACTING = '''
"""LoRA of what a model changes of its base, of the least rank that keeps most of each change: the weights decide."""

import json
import math

import torch
from attrs import frozen
from modelmerger import (
    Checkpoint, Composition, DeferredComposition, Problem, TensorInfo, Traits, hookimpl, read_elements,
)

traits = Traits(models=(1, 1), needs_base=True)


@frozen(kw_only=True)
class Options:
    kept: float = 0.9


class Factors(Checkpoint):
    def __init__(self, factors):
        self.name, self.factors = "the extracted adapter", factors
        self.tensors = {name: TensorInfo("F32", tuple(factor.shape)) for name, factor in factors.items()}

    def read(self, tensor, start, stop, buffer):
        torch.frombuffer(buffer, dtype=torch.float32).copy_(self.factors[tensor].flatten()[start:stop])


def whole(checkpoint, tensor):
    info = checkpoint.tensors[tensor]
    return read_elements(checkpoint, tensor, 0, info.elements).double().view(info.shape)


def extracted(model, base, kept):
    factors, ranks, square, missing = {}, {}, 0.0, 0.0
    for name in base.tensors:
        if name.endswith("q_proj.weight"):
            u, s, v = torch.linalg.svd(whole(model, name) - whole(base, name), full_matrices=False)
            energy = (s**2).cumsum(0)
            rank = 1 + int((energy < kept * energy[-1]).sum())
            square, missing = square + float(energy[-1]), missing + float(energy[-1] - energy[rank - 1])
            module = name.removesuffix(".weight")
            factors[f"base_model.model.{module}.lora_A.weight"] = v[:rank].float()
            factors[f"base_model.model.{module}.lora_B.weight"] = (u[:, :rank] * s[:rank]).float()
            ranks[module] = rank
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "lora_alpha": 1, "target_modules": list(ranks)}
    config |= {"rank_pattern": ranks, "alpha_pattern": ranks, "inference_mode": True}
    return Composition(
        Factors(factors),
        writes="adapter",
        stem="adapter_model",
        sharded=False,
        documents={"adapter_config.json": json.dumps(config).encode()},
        observed={module: {"rank": rank} for module, rank in ranks.items()},
        relative_error=math.sqrt(missing / square),
    )


@hookimpl
def compose_model(checkpoints, options):
    model, base = checkpoints
    note = Problem("the ranks depend on the weights.", "options.kept", severity="note")
    return DeferredComposition(lambda: extracted(model, base, options.kept), [note])
'''
