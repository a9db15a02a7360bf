"""LM heads that drifted apart from the embedding that the model ties them to; and untying, which makes both true."""

from collections.abc import Mapping, Sequence

from modelmerger.planning.tensor_names import is_embedding, layer_of
from modelmerger.planning.ties.same_numbers import seem_the_same
from modelmerger.planning.ties.seen_ties import TieView, may_tie
from modelmerger.planning.ties.tied_configs import says_tied, untied
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, ModelCompatibilityError, Problem
from modelmerger.values.options.core import MissingTensors
from modelmerger.values.text import shown

_OPTION = "options.untie"


def untie(checkpoints: Sequence[Checkpoint], donor: int) -> tuple[list[Checkpoint], list[Problem]]:
    """The models with an LM head of their own, as soon as one of them has one; and a note where none has.

    A model that ties it has the embedding's numbers in both. Raises `ConfigError` for models that tie more than that.
    """
    heads = {name: tensor for model in checkpoints for name, tensor in _own_heads(model, checkpoints[donor]).items()}
    if not heads:
        message = "has no effect: no model has an LM head that it stores beside the embedding."
        return list(checkpoints), [Problem(message, _OPTION, severity="note")]
    config = checkpoints[donor].donor.config or {}
    if config.get("is_encoder_decoder") is True:
        message = (
            "is for models that tie their LM head to one embedding, and an encoder-decoder ties more. Leave it out"
        )
        raise ConfigError(Problem(message, _OPTION))
    return [_untied(model, heads) for model in checkpoints], []


def _untied(model: Checkpoint, heads: Mapping[str, str]) -> Checkpoint:
    names = {name: name for name in model.tensors}
    for head, embedding in heads.items():
        if head not in names and embedding in names:
            names[head] = embedding
    aliases = {alias: tensor for alias, tensor in model.aliases.items() if alias not in heads}
    config = model.donor.config
    return TieView(model, names, aliases, None if config is None else untied(config))


def check_drift(checkpoints: Sequence[Checkpoint], donor: int, missing: MissingTensors) -> list[Problem]:
    """A warning where the donor stores an LM head that is not the embedding any more, though its config ties them.

    Raises `ModelCompatibilityError` where another model does, and the donor has one matrix for both. missing: what
    becomes of tensors that the donor lacks; where that is no error, such a head is left out as they are.
    """
    reference = checkpoints[donor]
    problems = [
        Problem(
            f"'{model.name}' has an LM head of its own here, other than its {shown(tensor)}, and "
            f"'{reference.name}' ties the two. Set options.untie: true to write both, or merge an untied base model.",
            model.place,
            head,
        )
        for model in checkpoints
        if model is not reference
        for head, tensor in _own_heads(model, reference).items()
        if head not in reference.tensors
    ]
    if problems and missing == "error":
        raise ModelCompatibilityError(*problems)
    if says_tied(reference.donor.config) is not True:
        return []
    return [
        Problem(
            f"differs from {shown(tensor)}, though the config ties the two: what loads the model may take one for the "
            "other. Set options.untie: true, so that config.json says that they are two.",
            reference.place,
            head,
            severity="warning",
        )
        for head, tensor in _own_heads(reference, reference).items()
        if not seem_the_same(reference, head, tensor)
    ]


def _own_heads(model: Checkpoint, donor: Checkpoint) -> dict[str, str]:
    """Matrices of the model that the donor ties, or may tie, to its embedding → that embedding, which the model has."""
    embeddings = [name for name in donor.tensors if is_embedding(name) and layer_of(name) is None]
    if not may_tie(donor) or len(embeddings) != 1 or embeddings[0] not in model.tensors:
        return {}
    (embedding,) = embeddings
    shape = model.tensors[embedding].shape
    return {
        name: embedding
        for name, info in model.tensors.items()
        if info.shape == shape and name != embedding and layer_of(name) is None and not is_embedding(name)
    }
