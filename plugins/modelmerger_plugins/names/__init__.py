"""What a tensor is called: a name in memory, in a wrapper or in another model's file, as the donor's file has it."""

from collections.abc import Iterable, Mapping, Sequence

from modelmerger import Checkpoint, CheckpointView, Problem, Settings, hookimpl

from modelmerger_plugins.names.matching import file_names as file_names
from modelmerger_plugins.names.prefixes import ModelOptions as ModelOptions
from modelmerger_plugins.names.renaming import renamed
from modelmerger_plugins.names.view import RenamedView
from modelmerger_plugins.names.view import without_wrappers as without_wrappers
from modelmerger_plugins.names.wrappers import unwrapped as unwrapped
from modelmerger_plugins.names.wrappers import without_anywhere
from modelmerger_plugins.names.wrappers import without_layers as without_layers

within_merges = ("view_models",)  # names that are the donor's already stay as they are


@hookimpl(tryfirst=True)
def view_models(checkpoints: Sequence[Checkpoint], settings: Settings) -> Sequence[Checkpoint]:
    """The models with the donor's names; before other plugins, which then see these names alone."""
    return renamed(checkpoints, settings)


@hookimpl
def name_saved_tensors(names: Sequence[str]) -> Mapping[str, str]:
    """What is saved has no name of a wrapper in it; what stands in front of all names may be the model's own."""
    return {name: without_anywhere(name) for name in names}


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint]) -> Iterable[Problem]:
    """What was renamed: one note a model."""
    for checkpoint in checkpoints:
        while isinstance(checkpoint, CheckpointView):
            if isinstance(checkpoint, RenamedView):
                yield from checkpoint.notes
                break
            checkpoint = checkpoint.checkpoint  # noqa: PLW2901 (what is viewed)
