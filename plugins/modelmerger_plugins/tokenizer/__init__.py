"""The files beside the weights: tokenizer, chat template, processor and embedding files of the model that gives them.

They are copied byte for byte, or made anew where they may not stay as they are; nothing in them is run or rendered.
What other models say otherwise is said, and so is what is left behind.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelmerger import (
    WHOLE_MODEL,
    Checkpoint,
    FileIdentity,
    FilesBeside,
    MergePlan,
    Problem,
    Settings,
    hookimpl,
)

from modelmerger_plugins.tokenizer.checks import problems_with
from modelmerger_plugins.tokenizer.comparing import problems_with_vocabularies
from modelmerger_plugins.tokenizer.generation import adjusted
from modelmerger_plugins.tokenizer.left_behind import problems_with_left_files
from modelmerger_plugins.tokenizer.options import Options, sources_of
from modelmerger_plugins.tokenizer.planned import files_to_write

__all__ = ["Options"]


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> Iterable[Problem]:
    """Errors for files that cannot go along, warnings about what the models say otherwise.

    Of a merge within another one, only the vocabularies are compared: its files are not written.
    """
    donor = checkpoints[settings.donor]
    for other in checkpoints:
        if other is not donor:
            yield from problems_with_vocabularies(donor, other)
    if not settings.where:
        yield from problems_with(checkpoints, sources_of(checkpoints, settings, options), options)


@hookimpl
def adjust_config(
    name: str, config: Mapping[str, Any], checkpoints: Sequence[Checkpoint], settings: Settings, options: Options
) -> Mapping[str, Any] | None:
    """The generation settings of the model that an option names."""
    if settings.where or options.generation_config_from is None:
        return None
    return adjusted(name, config, sources_of(checkpoints, settings, options).generation)


@hookimpl
def write_sidecars(
    plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings, options: Options
) -> Mapping[str, bytes | FileIdentity]:
    """Tokenizer, chat template, processor and embedding files."""
    return files_to_write(sources_of(checkpoints, settings, options), options, whole_model=plan.writes == WHOLE_MODEL)


@hookimpl
def check_files(
    beside: FilesBeside, checkpoints: Sequence[Checkpoint], settings: Settings, options: Options
) -> Iterable[Problem]:
    """One note for each model of which files are left behind."""
    return problems_with_left_files(beside, checkpoints, sources_of(checkpoints, settings, options), options)
