"""The adapter_config.json of a merged adapter, so that PEFT loads it without a word."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelmerger import Checkpoint, ModelReference, user_path

from modelmerger_plugins.peft_adapters.merging.factored import FactoredPart
from modelmerger_plugins.peft_adapters.merging.names import layer_ranks, parameter_ranks
from modelmerger_plugins.peft_adapters.merging.part import Part
from modelmerger_plugins.peft_adapters.merging.replacing import ReplacingPart
from modelmerger_plugins.peft_adapters.reading.bases import is_another
from modelmerger_plugins.peft_adapters.reading.config import AdapterConfig
from modelmerger_plugins.peft_adapters.reading.modules import leaf

INHERITED = ("task_type", "lora_dropout", "layer_replication")
"""Fields that the merged adapter has where all adapters have them alike."""


def adapter_config(
    parts: Sequence[Part], configs: Sequence[AdapterConfig], base: Checkpoint, used: ModelReference
) -> bytes:
    """The file's content.

    `parts`: with their final keys. `configs`: of the adapters. `used`: the base, as the merge found it.
    """
    layers, parameters = layer_ranks(parts), parameter_ranks(parts)
    rank = Counter((parameters or layers).values()).most_common(1)[0][0] if parameters or layers else 8
    others = {re.escape(name): own for name, own in _by_leaf(layers).items() if own != rank}
    transposed = [part.like.swapped and not part.of_embedding for part in parts if isinstance(part, FactoredPart)]
    values: dict[str, Any] = {
        "peft_type": "LORA",
        **{field: _alike(configs, field) for field in INHERITED if _alike(configs, field) is not None},
        **_base(configs, used),
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": any(transposed),
        "init_lora_weights": True,
        "target_modules": _targets(parts, base),
        "target_parameters": sorted(parameters) or None,
        "modules_to_save": _saved(parts, _wanted(configs)) or None,
        "bias": _bias(parts, _wanted(configs)),
        "trainable_token_indices": _tokens(parts, configs),
    }
    return (json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode(errors="backslashreplace")


def _alike(configs: Sequence[AdapterConfig], field: str) -> Any:
    """What all adapters say of a field; None where they differ."""
    first, *others = (config.values.get(field) for config in configs)
    return first if all(other == first for other in others) else None


def _base(configs: Sequence[AdapterConfig], used: ModelReference) -> dict[str, Any]:
    """The base as the adapters name it, if they all name the one that was used; else the one that was used."""
    trained_on = _alike(configs, "base_model_name_or_path")
    if isinstance(trained_on, str) and trained_on and not any(is_another(config, used) for config in configs):
        return {"base_model_name_or_path": _lasting(trained_on), "revision": _alike(configs, "revision")}
    if used.source is not None:
        return {"base_model_name_or_path": None}
    path = used.path
    name, _, revision = (path, "", "") if os.path.exists(user_path(path)) else path.partition("@")
    return {"base_model_name_or_path": _lasting(name), "revision": revision or None}


def _lasting(path: str) -> str:
    """A directory's absolute path; a Hub id as it is."""
    directory = user_path(path)
    return os.path.abspath(directory) if os.path.isdir(directory) else path


def _by_leaf(ranks: Mapping[str, int]) -> dict[str, int]:
    """Ranks by the last part of the modules' names where all of that name have the same, else by full names."""
    by_leaf: dict[str, set[int]] = {}
    for module, rank in ranks.items():
        by_leaf.setdefault(leaf(module), set()).add(rank)
    return {leaf(module) if len(by_leaf[leaf(module)]) == 1 else module: rank for module, rank in ranks.items()}


def _targets(parts: Sequence[Part], base: Checkpoint) -> list[str]:
    """The last part of the modules' names where every module of that name, or around others, has factors; else their
    full names.
    """
    layers = {part.in_memory: part.tensor for part in parts if isinstance(part, FactoredPart)}
    changed = set(layers.values())
    others = [name for name in (*base.tensors, *base.aliases) if name.endswith(".weight") and name not in changed]
    without = {leaf(name.removesuffix(".weight")) for name in others}
    without |= {part for name in base.tensors for part in name.split(".")[:-2]}
    targets = set()
    for name, tensor in layers.items():
        module, in_file = (each.removesuffix(".weight") for each in (name, tensor))
        targets.add(module if leaf(in_file) in without or leaf(module) in without else leaf(module))
    return sorted(targets)


def _wanted(configs: Sequence[AdapterConfig]) -> set[str]:
    """The modules that adapters save whole, as their configs name them."""
    lists = [config.values.get("modules_to_save") for config in configs]
    return {name for names in lists if isinstance(names, list) for name in names if isinstance(name, str)}


def _whole(parts: Sequence[Part]) -> list[str]:
    """The tensors that the merged adapter replaces whole."""
    return [part.in_memory for part in parts if isinstance(part, ReplacingPart) and part.indices is None]


def _saved(parts: Sequence[Part], wanted: set[str]) -> list[str]:
    """Those of the modules that the merged adapter saves whole."""
    return sorted(wanted & {name for tensor in _whole(parts) for name in _modules_around(tensor)})


def _modules_around(tensor: str) -> Iterator[str]:
    """All names, whole or in part, of the modules that a tensor is in: of `a.b.weight`, `a`, `a.b` and `b`."""
    parts = tensor.split(".")[:-1]
    for start in range(len(parts)):
        yield from (".".join(parts[start : end + 1]) for end in range(start, len(parts)))


def _bias(parts: Sequence[Part], wanted: set[str]) -> str:
    """Whose biases the merged adapter replaces, in PEFT's words: nobody's, those of layers with factors, or all."""
    saved, layers = _saved(parts, wanted), layer_ranks(parts)
    biases = [
        tensor.rpartition(".")[0]
        for tensor in _whole(parts)
        if tensor.endswith(".bias") and not any(f".{name}." in f".{tensor}" for name in saved)
    ]
    if not biases:
        return "none"
    return "lora_only" if all(module in layers for module in biases) else "all"


def _tokens(parts: Sequence[Part], configs: Sequence[AdapterConfig]) -> Any:
    """In the form that the adapters have it: a list of rows of the one embedding, or lists by module."""
    rows = {
        part.in_memory.rpartition(".")[0]: list(part.indices)
        for part in parts
        if isinstance(part, ReplacingPart) and part.indices is not None
    }
    forms = [config.values.get("trainable_token_indices") for config in configs]
    if len(rows) == 1 and not any(isinstance(form, dict) for form in forms):
        return next(iter(rows.values()))
    return rows or None
