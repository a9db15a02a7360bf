"""Matrices that drifted apart from the embedding that the model ties them to."""

from collections.abc import Sequence

from modelmerger.planning.tensor_names import is_embedding, layer_of
from modelmerger.planning.ties.same_numbers import seem_the_same
from modelmerger.planning.ties.seen_ties import may_tie
from modelmerger.planning.ties.tied_configs import says_tied
from modelmerger.planning.ties.tied_embeddings import embeddings_of_halves, tied_embedding
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ModelCompatibilityError, Problem
from modelmerger.values.options.core import MissingTensors
from modelmerger.values.text import shown


def check_drift(checkpoints: Sequence[Checkpoint], donor: int, missing: MissingTensors) -> list[Problem]:
    """A warning where the donor stores a matrix that is not the embedding any more, though its config ties them.

    Raises `ModelCompatibilityError` where another model does, and the donor has one matrix for both. missing: what
    becomes of tensors that the donor lacks; where that is no error, such a head is left out as they are.
    """
    reference = checkpoints[donor]
    problems = [
        Problem(
            f"'{model.name}' has {_kind(head)} of its own here, other than its {shown(tensor)}, and "
            f"'{reference.name}' ties the two. Set options.untie: true to write both, or merge an untied base model.",
            model.place,
            head,
        )
        for model in checkpoints
        if model is not reference
        for head, tensor in own_matrices(model, reference).items()
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
        for head, tensor in own_matrices(reference, reference).items()
        if not seem_the_same(reference, head, tensor)
    ]


def _kind(name: str) -> str:
    return "an embedding" if is_embedding(name) else "an LM head"


def own_matrices(model: Checkpoint, donor: Checkpoint) -> dict[str, str]:
    """Matrices of the model that the donor ties, or may tie, to its embedding → that embedding, which the model has."""
    embedding = tied_embedding(donor) if may_tie(donor) else None
    if embedding is None or embedding not in model.tensors:
        return {}
    halves = {*embeddings_of_halves(donor, embedding)}
    shape = model.tensors[embedding].shape
    return {
        name: embedding
        for name, info in model.tensors.items()
        if info.shape == shape
        and name != embedding
        and layer_of(name) is None
        and (name in halves or not is_embedding(name))
    }
