"""What a merged adapter is called in its files, and its adapter_config.json, so that PEFT loads it without a word."""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve
from modelmerger import Checkpoint, ModelReference, user_path

from modelmerger_plugins.peft_adapters.bases import is_another
from modelmerger_plugins.peft_adapters.config import AdapterConfig
from modelmerger_plugins.peft_adapters.keys import PREFIX
from modelmerger_plugins.peft_adapters.merged import ExpertsPart, FactoredPart, Part, ReplacingPart
from modelmerger_plugins.peft_adapters.parameters import BELOW

KEPT = ("task_type", "lora_dropout", "layer_replication")
"""Fields that the merged adapter has where all adapters have them alike."""


def named(parts: Sequence[Part]) -> list[Part]:
    """The parts under the names that PEFT gives them: what a layer with factors has besides is its base layer's.

    All of `target_parameters` get one rank: PEFT warns of a rank_pattern for them.
    """
    layers = _layers(parts)
    return [_named(part, layers, parts) for part in parts]


def _named(part: Part, layers: Mapping[str, int], parts: Sequence[Part]) -> Part:
    module, _, leaf = part.tensor.rpartition(".")
    if isinstance(part, ReplacingPart) and part.indices is None and module in layers:
        return evolve(part, key=f"{PREFIX}{module}{BELOW}.{leaf}")
    if isinstance(part, ExpertsPart):
        ranks = _parameters(parts)
        nested = [name for name in part.like.nested if f"{part.like.module}.{name}" in ranks]
        place = f"{PREFIX}{part.like.module}{BELOW * nested.index(part.like.parameter)}"
        keys = (f"{place}.lora_A.weight", f"{place}.lora_B.weight")
        return evolve(part, keys=keys, rank=max(ranks.values()))
    return part


def adapter_config(
    parts: Sequence[Part], configs: Sequence[AdapterConfig], base: Checkpoint, used: ModelReference
) -> bytes:
    """The adapter_config.json of these parts. configs: of the adapters. used: the base model, as the merge found it."""
    layers, parameters = _layers(parts), _parameters(parts)
    rank = Counter((parameters or layers).values()).most_common(1)[0][0] if parameters or layers else 8
    others = {re.escape(name): own for name, own in _by_leaf(layers).items() if own != rank}
    transposed = [part.like.swapped and not part.of_embedding for part in parts if isinstance(part, FactoredPart)]
    values: dict[str, Any] = {
        "peft_type": "LORA",
        **{field: _alike(configs, field) for field in KEPT if _alike(configs, field) is not None},
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
        "target_modules": _targets(layers, base),
        "target_parameters": sorted(parameters) or None,
        "modules_to_save": _saved(parts, _wanted(configs)) or None,
        "bias": _bias(parts, _wanted(configs)),
        "trainable_token_indices": _tokens(parts, configs),
    }
    return (json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode(errors="backslashreplace")


def _layers(parts: Sequence[Part]) -> dict[str, int]:
    """The modules that have factors, and their ranks."""
    return {part.tensor.rpartition(".")[0]: part.rank for part in parts if isinstance(part, FactoredPart)}


def _parameters(parts: Sequence[Part]) -> dict[str, int]:
    """The parameters that have factors, and their ranks."""
    return {part.tensor: part.rank for part in parts if isinstance(part, ExpertsPart)}


def _alike(configs: Sequence[AdapterConfig], field: str) -> Any:
    """What all adapters say of a field; None where they differ."""
    first, *others = (config.values.get(field) for config in configs)
    return first if all(other == first for other in others) else None


def _base(configs: Sequence[AdapterConfig], used: ModelReference) -> dict[str, Any]:
    """The base as the adapters name it, if they all name the one that was used; else the one that was used."""
    named = _alike(configs, "base_model_name_or_path")
    if isinstance(named, str) and named and not any(is_another(config, used) for config in configs):
        return {"base_model_name_or_path": _lasting(named), "revision": _alike(configs, "revision")}
    if used.source is not None:
        return {"base_model_name_or_path": None}
    path = used.path
    name, _, revision = (path, "", "") if os.path.exists(user_path(path)) else path.partition("@")
    return {"base_model_name_or_path": _lasting(name), "revision": revision or None}


def _lasting(path: str) -> str:
    """A directory's absolute path; a Hub id as it is."""
    place = str(user_path(path))
    return os.path.abspath(place) if os.path.isdir(place) else path


def _by_leaf(ranks: Mapping[str, int]) -> dict[str, int]:
    """Ranks by the last part of the modules' names where all of that name have the same, else by full names."""
    by_leaf: dict[str, set[int]] = {}
    for module, rank in ranks.items():
        by_leaf.setdefault(_leaf(module), set()).add(rank)
    return {_leaf(module) if len(by_leaf[_leaf(module)]) == 1 else module: rank for module, rank in ranks.items()}


def _targets(layers: Mapping[str, int], base: Checkpoint) -> list[str]:
    """The last part of the modules' names where every module of that name has factors; else their full names."""
    names = [name.removesuffix(".weight") for name in (*base.tensors, *base.aliases) if name.endswith(".weight")]
    without = {_leaf(module) for module in names if module not in layers}
    return sorted({module if _leaf(module) in without else _leaf(module) for module in layers})


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _wanted(configs: Sequence[AdapterConfig]) -> set[str]:
    """The modules that adapters save whole, as their configs name them."""
    lists = [config.values.get("modules_to_save") for config in configs]
    return {name for names in lists if isinstance(names, list) for name in names if isinstance(name, str)}


def _whole(parts: Sequence[Part]) -> list[str]:
    return [part.tensor for part in parts if isinstance(part, ReplacingPart) and part.indices is None]


def _saved(parts: Sequence[Part], wanted: set[str]) -> list[str]:
    """Those of the modules that the merged adapter saves whole."""
    return sorted(name for name in wanted if any(f".{name}." in f".{tensor}" for tensor in _whole(parts)))


def _bias(parts: Sequence[Part], wanted: set[str]) -> str:
    saved, layers = _saved(parts, wanted), _layers(parts)
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
        part.tensor.rpartition(".")[0]: list(part.indices)
        for part in parts
        if isinstance(part, ReplacingPart) and part.indices is not None
    }
    forms = [config.values.get("trainable_token_indices") for config in configs]
    if len(rows) == 1 and not any(isinstance(form, dict) for form in forms):
        return next(iter(rows.values()))
    return rows or None
