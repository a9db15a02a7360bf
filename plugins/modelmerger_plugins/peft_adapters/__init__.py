"""Opens and merges PEFT adapters: a directory with adapter_config.json is its base model with the adapter folded in.

Adapter files are read here, without PEFT; nothing that they name is imported, downloaded or run.
"""

from collections.abc import Iterable, Sequence

from modelmerger import (
    Checkpoint,
    Coefficients,
    LoadContext,
    MergedUpdates,
    ModelReference,
    Problem,
    Settings,
    hookimpl,
)

from modelmerger_plugins.peft_adapters.compatibility import problems
from modelmerger_plugins.peft_adapters.folding.folded import Folded
from modelmerger_plugins.peft_adapters.loading import load
from modelmerger_plugins.peft_adapters.options import Options


@hookimpl
def declare_options() -> type:
    """The options of this plugin."""
    return Options


@hookimpl
def load_model(reference: ModelReference, context: LoadContext) -> Checkpoint | None:
    """The base with the adapters of this directory folded in; None where the directory is no adapter."""
    return load(reference, context)


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterable[Problem]:
    """What the options ask of adapters that cannot be, and what is to be said of each adapter."""
    return problems(checkpoints, settings)


@hookimpl
def merge_updates(
    checkpoints: Sequence[Checkpoint], settings: Settings, coefficients: Coefficients
) -> MergedUpdates | None:
    """The adapters merged into one, or that one folded into the base. None where a model is something else."""
    *models, base = checkpoints
    folded = [model for model in models if isinstance(model, Folded)]
    if len(folded) < len(models):
        return None
    from modelmerger_plugins.peft_adapters.merging.merge import merge  # torch, which no light command needs

    return merge(folded, base, settings, coefficients)
