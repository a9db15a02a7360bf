"""Vocabularies of another size, for a check that has no options to match them by."""

from collections.abc import Iterator, Sequence

from modelmerger.planning.tensor_names import is_embedding, layer_of
from modelmerger.planning.views import CheckpointView
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import Problem


def matched_vocabularies(checkpoints: Sequence[Checkpoint]) -> Iterator[Problem]:
    """An error for each model whose embedding has another number of rows than the first one's, and only seems to fit.

    Plugins view models so that their rows go together. What is stored is compared here.
    """
    stored = [_rows(_stored(checkpoint)) for checkpoint in checkpoints]
    seen = [_rows(checkpoint) for checkpoint in checkpoints]
    for checkpoint, rows, fitting in zip(checkpoints, stored, seen, strict=True):
        if rows != stored[0] and fitting == seen[0]:
            message = (
                f"the vocabulary has {rows} rows here and {stored[0]} in '{checkpoints[0].name}'. "
                "`merge` matches rows by token; this check, which has no options, takes models of one vocabulary."
            )
            yield Problem(message, checkpoint.place)


def _stored(checkpoint: Checkpoint) -> Checkpoint:
    while isinstance(checkpoint, CheckpointView):
        checkpoint = checkpoint.checkpoint
    return checkpoint


def _rows(checkpoint: Checkpoint) -> int | None:
    found = [
        info.shape[0]
        for name, info in checkpoint.tensors.items()
        if is_embedding(name) and layer_of(name) is None and info.shape
    ]
    return found[0] if found else None
