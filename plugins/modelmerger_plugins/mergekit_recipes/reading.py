"""A file of mergekit as a config of ours, with what is to be said of it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve
from modelmerger import ConfigError, NumericError, Problem, ReadConfig, shown

from modelmerger_plugins.mergekit_recipes.beside import chat_template, written_dtype
from modelmerger_plugins.mergekit_recipes.documents import Documents
from modelmerger_plugins.mergekit_recipes.mending import UNREAD, Mender, method_of
from modelmerger_plugins.mergekit_recipes.methods import METHODS
from modelmerger_plugins.mergekit_recipes.recipe import Reader, Recipe
from modelmerger_plugins.mergekit_recipes.references import Reference
from modelmerger_plugins.mergekit_recipes.translating import Translation
from modelmerger_plugins.mergekit_recipes.vocabulary import tokenizer_options

NOT_IN_NAMES = re.compile(r"[\s/\\.~@:<>\[\]]+")
"""What the name of a merge here may not hold."""


def read_recipe(documents: Documents, file: str, *, intent: bool) -> ReadConfig:
    """The config. Raises `ConfigError` with all that is wrong, `NumericError` for numbers that give no result."""
    named, last = _named(documents.mappings, file)
    names = {name: NOT_IN_NAMES.sub("-", name) for name in named}
    problems: list[Problem] = []
    notes = [
        Problem("is given twice, and the last one counts, as in mergekit", f"{file}: {place}", severity="warning")
        for place in documents.twice
    ]
    undefined: list[Problem] = []
    merges = {}
    for number, (name, document) in enumerate(named.items(), 1):
        where = f"{file} ({shown(name, 30)})"
        merges[names[name]] = _one(document, where, names, problems, undefined, notes, number=number, intent=intent)
    config = _one(last, file, names, problems, undefined, notes, number=0, intent=intent)
    if problems:
        unread = [evolve(note, severity="error") for note in notes if UNREAD in note.message]
        raise ConfigError(*dict.fromkeys([*problems, *undefined, *unread]))
    if undefined:
        raise NumericError(*dict.fromkeys(undefined))
    order = ["strategy", "merges", "base_model", "models", "options"]
    whole = {**config, **({"merges": merges} if merges else {})}
    return ReadConfig({key: whole[key] for key in order if key in whole}, list(dict.fromkeys(notes)))


def _named(documents: Sequence[dict[str, Any]], file: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The documents with a name, and the one whose result is written. Raises `ConfigError`."""
    if len(documents) == 1:
        return {}, documents[0]
    named: dict[str, dict[str, Any]] = {}
    unnamed = [document for document in documents if document.get("name") is None]
    for document in documents:
        if document.get("name") is not None:
            name = str(document["name"])
            if name in named:
                raise ConfigError(Problem(f"two documents are named '{shown(name, 40)}'. Rename one", file))
            named[name] = document
    if len(unnamed) != 1:
        how = "all documents have a name" if not unnamed else f"{len(unnamed)} documents have no name"
        message = f"{how}, and the one without is the merge that is written. Take the name off that one alone"
        raise ConfigError(Problem(message, file))
    return named, unnamed[0]


def _one(
    document: dict[str, Any],
    file: str,
    names: Mapping[str, str],
    problems: list[Problem],
    undefined: list[Problem],
    notes: list[Problem],
    *,
    number: int,
    intent: bool,
) -> dict[str, Any]:
    """The merge that one document is; empty where something is wrong with it. number: 0 for the one that is written."""
    outermost = number == 0
    document = {key: value for key, value in document.items() if key != "name" or outermost}
    name = method_of(document.get("merge_method"), file, problems)
    if name is None:
        return {}
    method = METHODS[name]
    mender = Mender(file, method, name, intent, document)
    mended = mender.mended()
    notes += mender.notes
    recipe = Reader(file, problems, notes).read(mended, method, name)
    if recipe is None:
        written_dtype(mended, file, problems, notes)
        return {}
    translation = Translation(
        file=file, intent=intent, names=names, number=number, problems=problems, undefined=undefined, notes=notes
    )
    before = len(problems) + len(undefined)
    config = translation.merge(recipe)
    options = config.setdefault("options", {})
    if dtype := written_dtype(mended, file, problems, notes):
        options["torch_dtype"] = dtype
    options["missing_tensors"] = "donor"
    options["unmatched_patterns"] = "warning"
    if outermost:
        options["same_depth"] = True
    if len(problems) + len(undefined) > before:
        return {}
    if outermost:
        donor = recipe.base or recipe.slices[0].sources[0].reference
        options |= (of_tokenizer := tokenizer_options(mended, _nameable(recipe), donor, file, problems, notes))
        if of_tokenizer:
            translation.name_base(recipe, config)
        options |= chat_template(mended, file, problems)
    elif any(mended.get(key) is not None for key in ("tokenizer", "tokenizer_source", "chat_template")):
        message = "tokenizer and chat template of a document with a name are not written, since its result is not"
        notes.append(Problem(message, file, severity="note"))
    return config


def _nameable(recipe: Recipe) -> list[tuple[Reference, str | None]]:
    """The models that the outermost merge can name, each with the name that it is given for it."""
    if len(recipe.slices) > 1:
        return []
    return [(source.reference, None) for source in recipe.slices[0].sources]
