"""Vocabularies of the models of a merge within another one, whose rows nobody matches."""

from collections.abc import Iterator, Sequence

from modelmerger import Checkpoint, Problem

from modelmerger_plugins.tokenizer.rows.models import of_models


def problems_within(checkpoints: Sequence[Checkpoint], donor: int) -> Iterator[Problem]:
    """An error for each model that has other tokens than the donor, or has them in other rows."""
    models = of_models(checkpoints)
    ours = models[donor]
    for model in models:
        if model.tokens is not None and ours.tokens is not None and model.tokens != ours.tokens:
            message = (
                f"has another vocabulary than '{ours.checkpoint.name}', and within another merge rows are not matched "
                "by token. Publish this merge first, and give the path of what it wrote."
            )
            yield Problem(message, model.place)
