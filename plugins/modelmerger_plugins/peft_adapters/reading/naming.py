"""What the base's file calls the modules that an adapter calls as the model in memory does."""

import re
from collections.abc import Mapping
from typing import Any

from modelmerger import Checkpoint

from modelmerger_plugins.names import file_names, without_layers
from modelmerger_plugins.peft_adapters.reading.modules import BELOW, TRAINED_WHOLE, Keys

LAYER = re.compile(r"(.+?\.(?:0|[1-9]\d*))\.(.+)")
"""A layer, and what is in it."""
_OF_LAYERS = (
    *(
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        "self_attn.q_proj.weight",
        "self_attn.o_proj.weight",
    ),
    *("linear_attn.out_proj.weight", "attention_norm.weight"),
)
"""What layers with experts have besides, so that it shows where a file has them."""

Shape = tuple[int, ...]


def names_in_base(
    adapter: Checkpoint, base: Checkpoint, aliases: Mapping[str, str], modules: Mapping[str, Keys], transposed: bool
) -> Mapping[str, str]:
    """Tensor in memory → the same in the base's file, for what the adapter changes and the file has.

    `aliases`: tensors that the base leaves out → the one that they are tied to. Layers that hold experts are there as
    `layers.0`. `transposed`: whether the config says that the base stores its matrices so (`fan_in_fan_out`).
    """
    stored: dict[str, Shape | None] = {name: info.shape for name, info in base.tensors.items()}
    stored |= {alias: stored.get(target) for alias, target in aliases.items()}
    wanted = {
        name: shape for module, keys in modules.items() for name, shape in _wanted(adapter, module, keys, transposed)
    }
    if all(name in stored for name in wanted):
        return {name: name for name in wanted}
    plain = {name: without_layers(name) for name in wanted if name not in stored}
    wrapped = {name: there for name, there in plain.items() if there in stored and there not in wanted}
    if wrapped:
        wanted = {name: shape for name, shape in wanted.items() if name not in wrapped}
    return wrapped | _renamed(wanted, stored, base.donor.config)


def _renamed(
    wanted: Mapping[str, Shape | None], stored: Mapping[str, Shape | None], config: Mapping[str, Any] | None
) -> dict[str, str]:
    layers = {match[1] for name in wanted if name not in stored and (match := LAYER.fullmatch(name))}
    asked = {**wanted} | {f"{layer}.{name}": None for layer in layers for name in _OF_LAYERS}
    found = file_names(asked, stored, config)
    if missed := {name: None for name in asked if name not in found}:
        again = file_names(asked | missed, stored, config)
        found |= {name: there for name, there in again.items() if name in missed}
    for layer in sorted(layers):
        for name in _OF_LAYERS:
            there = found.get(f"{layer}.{name}", "")
            if there.endswith(f".{name}"):
                found.setdefault(layer, there.removesuffix(f".{name}"))
    return found


def _wanted(adapter: Checkpoint, module: str, keys: Keys, transposed: bool) -> list[tuple[str, Shape | None]]:
    """The tensor that the keys of a module change, and its shape where they show it."""
    shapes = {role: adapter.tensors[key].shape for role, key in keys.items()}
    if TRAINED_WHOLE in keys:
        return [(module, shapes[TRAINED_WHOLE])]
    shape = None
    a, b = shapes.get("lora_A", ()), shapes.get("lora_B", ())
    if len(a) == len(b) >= 2:
        shape = (a[1], b[0]) if transposed and len(a) == 2 else (b[0], *a[1:])
    if len(a := shapes.get("lora_embedding_A", ())) == len(b := shapes.get("lora_embedding_B", ())) == 2:
        shape = (a[1], b[0])
    return [(f"{module.replace(BELOW, '')}.weight", shape)]
