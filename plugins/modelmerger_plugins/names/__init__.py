"""What a tensor is called: a name in memory, in a wrapper or in another model's file, as the donor's file has it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelmerger import Checkpoint, CheckpointView, Problem, Settings, hookimpl

from modelmerger_plugins.names.options import ModelOptions as ModelOptions
from modelmerger_plugins.names.renaming import renamed
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
def materialise_model(directory: Path, merged: bool, settings: Settings | None, target: Path | None) -> Path | None:
    """A model under wrappers' names is merged alone: transformers would give it random numbers. No merge writes any."""
    if merged and settings is not None:
        return None
    from modelmerger_plugins.names.materialised import plain_model

    return plain_model(directory, target)


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint]) -> Iterable[Problem]:
    """What was renamed: one note a model."""
    for checkpoint in checkpoints:
        while isinstance(checkpoint, CheckpointView):
            from modelmerger_plugins.names.view import RenamedView

            if isinstance(checkpoint, RenamedView):
                yield from checkpoint.notes
                break
            checkpoint = checkpoint.checkpoint  # noqa: PLW2901 (what is viewed)


def file_names(
    names: Mapping[str, tuple[int, ...] | None] | Iterable[str],
    stored: Mapping[str, tuple[int, ...] | None],
    config: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The names in a file of tensors that are named as in memory, as wrappers write them, or as another file has them.

    names: with the shape of each, or None where it is not known; or names alone. They may be a part of the model, such
    as what an adapter changes. stored: the file's names and shapes, all of them. config: of the model, which tells what
    transformers renames as it loads it. Names without a counterpart, or with several that are equally good, are left
    out. No two names come to one.

    ```python
    file_names(["model.language_model.layers.0.self_attn.q_proj.weight"],
               {"language_model.model.layers.0.self_attn.q_proj.weight": (32, 32), …})
    # {"model.language_model.layers.0.self_attn.q_proj.weight": "language_model.model.layers.0.self_attn.q_proj.weight"}
    ```
    """
    from modelmerger_plugins.names.matching import match

    shapes = names if isinstance(names, Mapping) else dict.fromkeys(names)
    return dict(match(shapes, stored, whole=False, config=config).names)
