"""Untying: matrices that a model ties, and that drifted apart in another one, are written each for itself."""

from collections.abc import Mapping, Sequence

from modelmerger.planning.ties.drifted import own_matrices
from modelmerger.planning.ties.seen_ties import TieView
from modelmerger.planning.ties.tied_configs import untied
from modelmerger.planning.ties.tied_embeddings import (
    beside_embedding,
    bias_of_head,
    embeddings_of_halves,
    tied_embedding,
)
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import Problem


def untie(checkpoints: Sequence[Checkpoint], donor: int) -> tuple[list[Checkpoint], list[Problem]]:
    """The models with an LM head of their own, as soon as one of them has one; and a note where none has.

    A model that ties it has the embedding's numbers in both. Encoder-decoders have the embeddings of their halves too:
    where their config says that nothing is tied, no loader takes the common one for those. So it is with biases.
    """
    reference = checkpoints[donor]
    own = {name: tensor for model in checkpoints for name, tensor in own_matrices(model, reference).items()}
    if not own:
        message = "has no effect: no model has an LM head that it stores beside the embedding."
        return list(checkpoints), [Problem(message, "options.untie", severity="note")]
    if (embedding := tied_embedding(reference)) is not None:
        own |= dict.fromkeys(embeddings_of_halves(reference, embedding), embedding)
        own |= beside_embedding(reference, embedding)
    own |= {bias: common for head in own for bias, common in bias_of_head(reference, head).items()}
    return [_untied(model, own) for model in checkpoints], []


def _untied(model: Checkpoint, own: Mapping[str, str]) -> Checkpoint:
    names = {name: name for name in model.tensors}
    for name, common in own.items():
        if name not in names and common in names:
            names[name] = common
    aliases = {alias: tensor for alias, tensor in model.aliases.items() if alias not in own}
    config = model.donor.config
    return TieView(model, names, aliases, None if config is None else untied(config))
