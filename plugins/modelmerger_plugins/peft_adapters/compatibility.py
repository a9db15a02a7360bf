"""What stands against merging models with adapters among them, and what is to be said of each adapter."""

from collections.abc import Iterator, Sequence

from modelmerger import Checkpoint, Problem, Settings

from modelmerger_plugins.peft_adapters.folding.folded import Folded
from modelmerger_plugins.peft_adapters.options import contradictions, options_of, peft_config
from modelmerger_plugins.peft_adapters.reading.replication import layers_of


def problems(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterator[Problem]:
    """Errors and warnings, from headers and JSON alone. `checkpoints`: as the hook `check_compatibility` gets them."""
    folded = [checkpoint for checkpoint in checkpoints if isinstance(checkpoint, Folded)]
    yield from contradictions(settings, any_adapter=bool(folded))
    yield from _of_other_layers(folded, checkpoints, settings)
    to_adapter = peft_config(settings).merge_adapters and options_of(settings).to_adapter
    for checkpoint in folded:
        yield from checkpoint.notes
        if not to_adapter:
            yield from _changes_of_tied(checkpoint)


def _of_other_layers(
    folded: Sequence[Folded], checkpoints: Sequence[Checkpoint], settings: Settings
) -> Iterator[Problem]:
    """Adapters of a model with repeated layers have no tensor of their own in a base without them."""
    base = checkpoints[-1] if settings.base_model is not None else folded[0].base.checkpoint if folded else None
    for checkpoint in folded:
        ours, theirs = layers_of(checkpoint.base.checkpoint), layers_of(base)
        if ours and theirs is None:
            message = (
                "repeats layers of its base (layer_replication), and base_model does not. "
                "Give peft_config.base_model_path instead."
            )
            yield Problem(message, checkpoint.place)
        elif ours != theirs and peft_config(settings).merge_adapters:
            message = "and another adapter do not repeat the same layers of their base. Set merge_adapters: false."
            yield Problem(message, checkpoint.place)


def _changes_of_tied(checkpoint: Folded) -> Iterator[Problem]:
    """A warning for each tensor that an adapter changes and that is another one as well."""
    tied = set(checkpoint.aliases.values())
    for adapter in checkpoint.adapters:
        for tensor in sorted(tied & adapter.changes.keys()):
            message = "is tied to the LM head, so the adapter's change of the embedding changes the LM head as well."
            yield Problem(message, checkpoint.place, tensor, severity="warning")
