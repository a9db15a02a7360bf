"""Vocabularies, whose rows are matched by token, and the files beside the weights of the models that give them.

These are tokenizer, chat template, processor and embedding files. They are copied byte for byte, or made anew where
they may not stay as they are; nothing in them is run or rendered. What other models say otherwise is said, and so is
what is left behind.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from modelmerger import (
    WHOLE_MODEL,
    Checkpoint,
    FileIdentity,
    FilesBeside,
    Inquiry,
    LoadContext,
    MergePlan,
    Problem,
    Settings,
    hookimpl,
)

from modelmerger_plugins.tokenizer.checks import in_config, problems_with, problems_with_sources
from modelmerger_plugins.tokenizer.comparing import problems_with_vocabularies
from modelmerger_plugins.tokenizer.left_behind import problems_with_left_files
from modelmerger_plugins.tokenizer.modules.joining import with_modules
from modelmerger_plugins.tokenizer.modules.listed import joined_folders
from modelmerger_plugins.tokenizer.options import Options, sources_of
from modelmerger_plugins.tokenizer.planned import files_to_write
from modelmerger_plugins.tokenizer.rows.viewing import any_matching_in, matched, matching_in

__all__ = ["Options"]

within_merges = ("view_models", "adjust_config")  # as that merge has them once it is published


@hookimpl(trylast=True)
def view_models(
    checkpoints: Sequence[Checkpoint], settings: Settings, context: LoadContext, options: Options
) -> Sequence[Checkpoint] | None:
    """The models with the rows of one vocabulary, where their vocabularies differ, and with the weights of modules."""
    views = matched(checkpoints, settings, options)
    return with_modules(views or checkpoints, settings, context) or views


@hookimpl
def check_config(options: Options) -> Iterable[Problem]:
    """What is wrong with a chat template that the config gives."""
    return in_config(options)


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> Iterable[Problem]:
    """What becomes of vocabularies that differ, errors for files that cannot go along, warnings about what the models
    say otherwise.

    Of a merge within another one, only the vocabularies are compared: its files are not written.
    """
    any_matching, donor = any_matching_in(checkpoints), checkpoints[settings.donor]
    if any_matching is not None:
        from modelmerger_plugins.tokenizer.rows.saying import problems_with_matching

        yield from problems_with_matching(any_matching, within=bool(settings.where))
    matching = matching_in(checkpoints)
    for other in checkpoints if matching is None else ():
        if other is not donor:
            yield from problems_with_vocabularies(donor, other, matched=any_matching is not None)
    if not settings.where:
        yield from problems_with_sources(any_matching, options)
        yield from problems_with(checkpoints, sources_of(checkpoints, settings, options), options, matching)


@hookimpl
def adjust_config(
    name: str, config: Mapping[str, Any], checkpoints: Sequence[Checkpoint], settings: Settings, options: Options
) -> Mapping[str, Any] | None:
    """The ids of special tokens as the vocabulary has them, and the generation settings of the model that an option
    names.
    """
    sources, matching = sources_of(checkpoints, settings, options), matching_in(checkpoints)
    if matching is None and (settings.where or options.generation_config_from is None):
        return None
    from modelmerger_plugins.tokenizer import generation

    if matching is not None:
        return generation.matched(name, config, matching, sources)
    return generation.adjusted(name, config, sources.generation)


@hookimpl
def place_tensors(checkpoints: Sequence[Checkpoint], settings: Settings) -> Mapping[str, str]:
    """The weights of modules go to the folders that modules.json names."""
    return {f"{folder}/": folder for folder in joined_folders(checkpoints[settings.donor])}


@hookimpl
def measure_output(
    texts: Callable[[], Mapping[str, Sequence[str]]], checkpoints: Sequence[Checkpoint]
) -> Iterable[Inquiry]:
    """Into how many tokens words are cut, by the models' tokenizers and the merged model's, where these differ."""
    matching = matching_in(checkpoints)
    if matching is None:
        return []
    from modelmerger_plugins.tokenizer.rows.measuring import inquiries

    return inquiries(matching, texts())


@hookimpl
def write_sidecars(
    plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings, options: Options
) -> Mapping[str, bytes | FileIdentity]:
    """Tokenizer, chat template, processor and embedding files."""
    sources, matching = sources_of(checkpoints, settings, options), matching_in(checkpoints)
    return files_to_write(sources, options, matching, whole_model=plan.writes == WHOLE_MODEL)


@hookimpl
def check_files(
    beside: FilesBeside, checkpoints: Sequence[Checkpoint], settings: Settings, options: Options
) -> Iterable[Problem]:
    """One note for each model of which files are left behind."""
    return problems_with_left_files(beside, checkpoints, sources_of(checkpoints, settings, options), options)
