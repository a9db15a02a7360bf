"""Compares the models' configs before any tensor, to say in one line why two models do not fit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelmerger import Checkpoint, Problem, Settings, amount, hookimpl

CRITICAL = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "n_embd", "n_layer", "d_model")
"""Keys of a config that must be equal."""
TELLING = (
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "tie_word_embeddings",
    "hidden_act",
    "rms_norm_eps",
    "layer_norm_eps",
)
"""Keys of a config that say what the weights mean."""
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_decoder_layers")
TOKENS = ("vocab_size",)
MOST_SHARED = 1000
"""Layers or tokens that any number of weights may have: some architectures use the weights of a layer several times."""


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterable[Problem]:
    """Errors where configs differ in what weights depend on, warnings where the meaning of weights may differ."""
    donor = checkpoints[settings.donor]
    for checkpoint in checkpoints:
        yield from _claims(checkpoint)
    for other in checkpoints:
        if other is not donor:
            yield from _configs(donor, other, settings)


def _configs(donor: Checkpoint, other: Checkpoint, settings: Settings) -> Iterable[Problem]:
    ours, theirs = donor.donor.config, other.donor.config
    if ours is None or theirs is None:
        return
    for key in CRITICAL:
        if key in ours and key in theirs and ours[key] != theirs[key]:
            message = (
                f"{key} is {theirs[key]!r} here and {ours[key]!r} in '{donor.name}'. Merge models of one architecture."
            )
            missing = key in LAYERS and settings.options.missing_tensors != "error"
            yield Problem(message, f"{other.place}/config.json", severity="warning" if missing else "error")
    for key in TELLING:
        if key in ours and key in theirs and ours[key] != theirs[key]:
            message = f"{key} is {theirs[key]!r} here and {ours[key]!r} in '{donor.name}', whose config is taken."
            yield Problem(message, f"{other.place}/config.json", severity="warning")


def _claims(checkpoint: Checkpoint) -> Iterable[Problem]:
    """Refuses a config that claims more than the weights could ever fill, because a loader would build all of it."""
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


def _levels(value: Any) -> Iterable[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    if isinstance(value, Mapping | list):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _levels(member)
