"""Configs that claim more than the weights could ever fill, because a loader would build all of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from modelmerger import Checkpoint, Problem, amount

LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_decoder_layers")
TOKENS = ("vocab_size",)
MOST_SHARED = 1000
"""Layers or tokens that any number of weights may have: some architectures use the weights of a layer several times."""


def unbelievable_claims(checkpoint: Checkpoint) -> Iterator[Problem]:
    """An error for each number of layers or tokens, at any level of the config, that is beyond belief."""
    tensors = len(checkpoint.tensors)
    elements = sum(tensor.elements for tensor in checkpoint.tensors.values())
    for level in _levels(checkpoint.donor.config or {}):
        for keys, most, what in (
            (LAYERS, max(MOST_SHARED, tensors), "layers"),
            (TOKENS, max(MOST_SHARED, elements), "tokens"),
        ):
            for key in keys:
                claimed = level.get(key)
                if isinstance(claimed, int | float) and claimed > most:
                    message = (
                        f"{key} claims {claimed:,} {what}, and the weights are {amount(tensors, 'tensor')} "
                        f"of {amount(elements, 'number')} in all. Is this the right config?"
                    )
                    yield Problem(message, f"{checkpoint.place}/config.json")


def _levels(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    if isinstance(value, Mapping | list):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _levels(member)
