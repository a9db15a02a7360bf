"""Configs that claim more than the weights could ever fill, because a loader would build all of it."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from modelmerger import Problem, TensorInfo, amount

LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_decoder_layers")
TOKENS = ("vocab_size",)
MOST_SHARED = 1000
"""Layers or tokens that any number of weights may have: some architectures use the weights of a layer several times."""


def unbelievable_claims(config: Mapping[str, Any], infos: Collection[TensorInfo], place: str) -> Iterator[Problem]:
    """An error for each number of layers or tokens, at any level of the config, that is beyond belief.

    infos: of the tensors that the model has. place: where the config lies.
    """
    tensors = len(infos)
    elements = sum(info.elements for info in infos)
    for level in _levels(config):
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
                    yield Problem(message, place)


def _levels(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    if isinstance(value, Mapping | list):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _levels(member)
