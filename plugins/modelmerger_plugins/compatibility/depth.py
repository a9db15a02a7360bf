"""Models of one depth: of a model with more layers than the donor, some would be lost where tensors may be missing."""

from collections.abc import Iterator, Mapping
from typing import Any

from modelmerger import Checkpoint, Problem

KEYS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")


def other_depth(donor: Checkpoint, other: Checkpoint) -> Iterator[Problem]:
    """An error for a model whose config says another number of layers than the donor's."""
    ours, theirs = (_depth(model.donor.config or {}) for model in (donor, other))
    if None not in (ours, theirs) and ours != theirs:
        message = (
            f"has {theirs} layers, and '{donor.name}' has {ours}: only models of one depth are merged (same_depth). "
            "Take as many layers of each in models[i].layers, or give same_depth: false."
        )
        yield Problem(message, other.place)


def _depth(config: Mapping[str, Any]) -> int | None:
    inner = config.get("text_config")
    found = next((config[key] for key in KEYS if isinstance(config.get(key), int)), None)
    return found if found is not None or not isinstance(inner, Mapping) else _depth(inner)
