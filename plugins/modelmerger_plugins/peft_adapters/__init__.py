"""Opens and merges PEFT adapters: a directory with adapter_config.json is its base model with the adapter folded in.

Adapter files are read here, without PEFT; nothing that they name is imported, downloaded or run.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from modelmerger import (
    Checkpoint,
    Coefficients,
    Composition,
    DeferredComposition,
    LoadContext,
    ModelReference,
    Problem,
    Settings,
    hookimpl,
)

from modelmerger_plugins.peft_adapters.finding import adapters_at
from modelmerger_plugins.peft_adapters.options import Options, contradictions
from modelmerger_plugins.peft_adapters.section import FILE, SECTION, in_config, of_adapters, without_effect

__all__ = ["Options"]
sections = (SECTION,)


@hookimpl
def check_config(settings: Settings) -> Iterable[Problem]:
    """A base that is given in two places is one base."""
    return in_config(settings)


@hookimpl
def load_model(reference: ModelReference, context: LoadContext) -> Checkpoint | None:
    """The base with the adapters of this directory folded in; None where the directory is no adapter."""
    directories = adapters_at(reference, context.settings)
    if not directories:
        return None
    from modelmerger_plugins.peft_adapters.loading import load

    return load(reference, directories, context)


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> Iterable[Problem]:
    """What the options ask of adapters that cannot be, and what is to be said of each adapter."""
    if all(checkpoint.base is None for checkpoint in checkpoints):
        return [*without_effect(settings), *contradictions(options, False, of_adapters(settings).merge_adapters)]
    from modelmerger_plugins.peft_adapters.compatibility import in_models

    return in_models(checkpoints, settings, options)


@hookimpl
def compose_model(
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    coefficients: Callable[[], Coefficients] | None,
    options: Options,
) -> DeferredComposition | None:
    """The adapters merged into one, or that one folded into the base, where `merge_adapters` asks for it.

    The ranks, and so the shapes, depend on the factors. Raises what stands against merging.
    """
    models, base = checkpoints[: len(settings.models)], checkpoints[-1]
    if not of_adapters(settings).merge_adapters or all(model.base is None for model in models):
        return None
    from modelmerger_plugins.peft_adapters.compatibility import check_updates

    folded = check_updates(models, settings, coefficients is not None)
    assert coefficients is not None
    told = coefficients()

    def compose() -> Composition:
        from modelmerger_plugins.peft_adapters.merging.merge import merge  # torch, which no light command needs

        return merge(folded, base, settings, options, told)

    return DeferredComposition(compose, told.notes)


@hookimpl
def return_model(directory: Path, base: Path | None, load: Callable[[Path], Any], low_memory_mode: bool) -> Any:
    """An adapter comes back as a PEFT model: its base with the adapter."""
    if base is None or not os.path.lexists(directory / FILE):
        return None
    from modelmerger_plugins.peft_adapters.objects import peft_model

    return peft_model(directory, base, load, low_memory_mode)


@hookimpl
def materialise_model(directory: Path, merged: bool, settings: Settings | None, target: Path | None) -> Path | None:
    """An adapter is folded into its base by a merge of one model: PEFT would import what an adapter's config names."""
    if not os.path.lexists(directory / FILE):
        return None
    from modelmerger_plugins.peft_adapters.objects import full_model

    return full_model(directory, merged, settings, target)
