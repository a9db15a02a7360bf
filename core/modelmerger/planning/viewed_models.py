"""The models of a merge as they are merged: as plugins view them, with the matrices that they tie seen alike."""

from collections.abc import Sequence

from modelmerger.hooks.assembly import Hooks
from modelmerger.inputs.loading import LoadContext
from modelmerger.planning.ties.drifted import check_drift
from modelmerger.planning.ties.seen_ties import see_ties
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import Problem
from modelmerger.values.layers.taken import layer_numbers
from modelmerger.values.settings import Settings


def with_layers(checkpoints: Sequence[Checkpoint], settings: Settings) -> list[Checkpoint]:
    """The models with the layers that the config takes of them. Raises `InputError` for layers that are not there."""
    taken = {i: layer_numbers(model.layers) for i, model in enumerate(settings.models) if model.layers is not None}
    if not taken:
        return list(checkpoints)
    from modelmerger.planning.layers.layer_view import LayerView

    return [LayerView(checkpoint, taken[i]) if i in taken else checkpoint for i, checkpoint in enumerate(checkpoints)]


def view_models(
    hooks: Hooks, checkpoints: Sequence[Checkpoint], settings: Settings, context: LoadContext
) -> tuple[Sequence[Checkpoint], list[Problem]]:
    """The views, in the order of the checkpoints, and what is to be said of them. Raises what forbids the merge.

    context: what plugins open the rest of a model with.
    """
    seen = see_ties(hooks.models.view_models(checkpoints, settings, context), settings.donor)
    if settings.options.untie:
        from modelmerger.planning.ties.untying import untie

        return untie(seen, settings.donor)
    return seen, check_drift(seen, settings.donor, settings.options.missing_tensors)
