"""Layers that are merged with each other are of one kind: no sliding-window layer goes with a full-attention one."""

from collections.abc import Iterator, Mapping
from typing import Any

from modelmerger import Checkpoint, Problem, Settings, shown

KEYS = ("layer_types", "layers_block_type", "block_types", "hybrid_override_pattern")
"""Keys of a config that say of what kind each layer is."""


def other_kinds(donor: Checkpoint, other: Checkpoint, settings: Settings) -> Iterator[Problem]:
    """An error for the first layer that is of another kind than the donor's, at each level of the configs."""
    if not settings.composes:
        yield from _in_configs(donor.donor.config or {}, other.donor.config or {}, donor, other)


def _in_configs(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], donor: Checkpoint, other: Checkpoint
) -> Iterator[Problem]:
    for key, value in ours.items():
        if isinstance(value, Mapping) and isinstance(theirs.get(key), Mapping):
            yield from _in_configs(value, theirs[key], donor, other)
        if key not in KEYS or not isinstance(theirs.get(key), type(value)) or not isinstance(value, list | str):
            continue
        differing = [i for i, kinds in enumerate(zip(value, theirs[key], strict=False)) if kinds[0] != kinds[1]]
        if differing:
            first = differing[0]
            here, there = shown(repr(theirs[key][first]), 40), shown(repr(value[first]), 40)
            others = f", and {len(differing) - 1} more" if differing[1:] else ""
            message = (
                f"layer {first} is a {here} here and a {there} in '{donor.name}'{others} ({key}). Layers of two "
                "kinds cannot be merged with each other: take others in models[i].layers."
            )
            yield Problem(message, f"{other.place}/config.json")
