"""The head of a model: missing, or of another kind than that of another model."""

from collections.abc import Iterator, Sequence
from typing import Any

from modelmerger import Checkpoint, Problem, Settings, is_embedding, is_head, layer_of, shown

from modelmerger_plugins.transformers_classes import CAUSAL


def missing_head(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterator[Problem]:
    """An error where the donor's class has an LM head that nothing ties, and no model has one.

    If another model has one, that a tensor is missing is said anyway.
    """
    donor = checkpoints[settings.donor]
    config = donor.donor.config or {}
    untied = config.get("tie_word_embeddings") is False
    if not (untied and _architecture(donor).endswith(CAUSAL)) or any(map(_may_have_head, checkpoints)):
        return
    message = (
        f"has no LM head, though {shown(_architecture(donor), 50)} has one, and tie_word_embeddings: false says that "
        "it is not the embedding. It would be loaded with random numbers. Save the whole model, or correct the config."
    )
    yield Problem(message, donor.place)


def other_head(donor: Checkpoint, other: Checkpoint, settings: Settings) -> Iterator[Problem]:
    """An error where models of two classes have heads of other names, unless tensors may be missing."""
    ours, theirs = _architecture(donor), _architecture(other)
    if settings.options.missing_tensors != "error" or not (ours and theirs) or ours == theirs:
        return
    ours_alone, theirs_alone = _outside_layers(donor, other), _outside_layers(other, donor)
    same_body = set(donor.tensors) - set(ours_alone) == set(other.tensors) - set(theirs_alone)
    if not same_body or not (ours_alone or theirs_alone):
        return
    message = (
        f"is a {shown(theirs, 50)} and '{donor.name}' a {shown(ours, 50)}: one lacks the other's head "
        f"({shown((theirs_alone or ours_alone)[0], 50)}). Merge models with one kind of head, or set "
        "missing_tensors: donor."
    )
    yield Problem(message, other.place)


def _architecture(checkpoint: Checkpoint) -> str:
    classes: Any = (checkpoint.donor.config or {}).get("architectures")
    return classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""


def _may_have_head(checkpoint: Checkpoint) -> bool:
    """Whether any tensor outside the layers may be a head: by its name, or because it has a row for each token."""
    rows = {info.shape[0] for name, info in checkpoint.tensors.items() if is_embedding(name) and info.shape}
    outside = ((name, info) for name, info in checkpoint.tensors.items() if layer_of(name) is None)
    return not rows or any(
        is_head(name) or (info.shape[:1] and info.shape[0] in rows and not is_embedding(name)) for name, info in outside
    )


def _outside_layers(checkpoint: Checkpoint, other: Checkpoint) -> list[str]:
    """Tensors outside the layers that the other model lacks, by any name."""
    known = {*other.tensors, *other.aliases}
    return [name for name in checkpoint.tensors if name not in known and layer_of(name) is None]
