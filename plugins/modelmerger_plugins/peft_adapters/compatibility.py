"""What stands against merging models with adapters among them, and what is to be said of each adapter."""

from collections.abc import Iterator, Sequence

from modelmerger import (
    Checkpoint,
    CheckpointView,
    ConfigError,
    ModelCompatibilityError,
    Problem,
    Settings,
    check_same_base,
)

from modelmerger_plugins.peft_adapters.folding.folded import Folded
from modelmerger_plugins.peft_adapters.folding.untrained import untrained
from modelmerger_plugins.peft_adapters.options import Options, contradictions
from modelmerger_plugins.peft_adapters.reading.replication import layers_of
from modelmerger_plugins.peft_adapters.section import ADVICE, BASE_KEY, of_adapters, whole_key


def in_models(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> Iterator[Problem]:
    """Errors, warnings and notes, from headers, JSON and the first numbers of adapters that are folded.

    `checkpoints`: as the hook `check_compatibility` gets them.
    """
    folded = [checkpoint for checkpoint in checkpoints if isinstance(checkpoint, Folded)]
    adapters = [checkpoint for checkpoint in map(_opened, checkpoints) if isinstance(checkpoint, Folded)]
    merge_adapters = of_adapters(settings).merge_adapters
    yield from contradictions(options, bool(adapters), merge_adapters)
    yield from _of_other_layers(folded, checkpoints, settings)
    for checkpoint in adapters:
        yield from checkpoint.notes
        if not merge_adapters:
            yield from untrained(checkpoint)
        if not (merge_adapters and options.to_adapter):
            yield from _changes_of_tied(checkpoint)


def check_updates(models: Sequence[Checkpoint], settings: Settings, able: bool) -> list[Folded]:
    """The models, which are adapters. Raises what stands against merging their updates.

    `able`: whether the strategy can.
    """
    if settings.where:
        message = (
            "only the outermost merge can merge the updates of adapters. "
            "Set peft_config.merge_adapters: false in this merge, which folds each adapter into its base"
        )
        raise ConfigError(Problem(message, "peft_config.merge_adapters"))
    folded = [model for model in models if isinstance(model, Folded)]
    message = f"is a full model, and merge_adapters: true merges adapters alone. {ADVICE}."
    problems = [Problem(message, model.place) for model in models if model.base is None]
    problems += check_same_base(models)
    message = "is an adapter that a plugin views otherwise, and merge_adapters: true merges adapters as they are"
    views = [model for model in models if model.base is not None and not isinstance(model, Folded)]
    problems += [Problem(f"{message}. {ADVICE}.", model.place) for model in views]
    if problems:
        raise ModelCompatibilityError(*problems)
    if not able:
        message = f"{settings.strategy} works on full models and cannot merge the updates of adapters. {ADVICE}"
        raise ConfigError(Problem(message, "peft_config.merge_adapters"))
    return folded


def _opened(checkpoint: Checkpoint) -> Checkpoint:
    """The model as it was opened, without what plugins view otherwise."""
    while isinstance(checkpoint, CheckpointView):
        checkpoint = checkpoint.checkpoint
    return checkpoint


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
                f"Give {whole_key(settings, BASE_KEY)} instead."
            )
            yield Problem(message, checkpoint.place)
        elif ours != theirs and of_adapters(settings).merge_adapters:
            message = "and another adapter do not repeat the same layers of their base. Set merge_adapters: false."
            yield Problem(message, checkpoint.place)


def _changes_of_tied(checkpoint: Folded) -> Iterator[Problem]:
    """A warning for each tensor that an adapter changes and that is another one as well."""
    tied = set(checkpoint.aliases.values())
    for adapter in checkpoint.adapters:
        if adapter.config is not None and adapter.config.flag("ensure_weight_tying"):
            continue  # that is what it was trained for
        for tensor in sorted(tied & adapter.changes.keys()):
            message = "is tied to the LM head, so the adapter's change of the embedding changes the LM head as well."
            yield Problem(message, checkpoint.place, tensor, severity="warning")
