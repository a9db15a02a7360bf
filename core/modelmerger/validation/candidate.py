"""What is validated, and against what: the merged model of a config, or what the command line names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from modelmerger.config.naming import references, with_names
from modelmerger.hooks.assembly import Hooks
from modelmerger.validation.loadable import check_loadable
from modelmerger.validation.models import Place
from modelmerger.values.errors import ConfigError, InputError, Problem, UnmeasurableError
from modelmerger.values.model_reference import ModelReference
from modelmerger.values.settings import ModelSettings, Settings, ValidationSettings


@frozen(kw_only=True)
class Candidate:
    """The model to be validated."""

    directory: Path
    """Where it lies."""
    held: tuple[Any, Any] | None = None
    """Its model and tokenizer, or the directory of that, where the caller has the model in memory."""
    settings: Settings | None = None
    """Of the merge that it came from, where that is known."""
    sources: Sequence[ModelReference] = ()
    """What was merged."""
    base: ModelReference | None = None
    """The base model, if there is one."""

    @property
    def device_map(self) -> str | dict[str, int | str]:
        """Where models are loaded to, as transformers has it."""
        return self.settings.options.device_map if self.settings is not None else "auto"

    @property
    def name(self) -> str:
        """The last part of the directory; marked where another model is named so."""
        name = self.directory.resolve().name
        taken = {reference.name for reference in self._others}
        while name in taken:
            name = f"{name} (merged)"
        return name

    @property
    def places(self) -> Mapping[str, Place]:
        """Every model by name."""
        merged = self.held or ModelReference(str(self.directory), self.name, "MODEL")
        return {self.name: merged} | {reference.name: reference for reference in self._others}

    @property
    def _others(self) -> list[ModelReference]:
        return [*self.sources, *([self.base] if self.base is not None else [])]


def merged_candidate(directory: Path, settings: Settings, held: tuple[Any, Any] | None = None) -> Candidate:
    """The merged model of a config; its sources are the models of the config. Raises `ConfigError` for no model."""
    if held is not None and (held[0] is None or isinstance(held[0], str | os.PathLike)):
        got = f"got {type(held[0]).__name__}. To measure one on the disk, use 'modelmerger validate'"
        raise ConfigError(f"what is validated must be the model that merge() returned, {got}")
    models, count = references(settings), len(settings.models)
    return Candidate(
        directory=directory,
        held=held,
        settings=settings,
        sources=models[:count],
        base=models[count] if len(models) > count else None,
    )


def named_candidate(
    model: str, against: Sequence[str], settings: Settings | None, validation: ValidationSettings, hooks: Hooks
) -> tuple[Candidate, ValidationSettings]:
    """A model by its path or Hub id, and what is to be found out about it.

    Its sources are `against`, and then they are compared; else the models that `settings` of a merge name. Raises
    `InputError` for what cannot be loaded.
    """
    directory = _located(model, settings, hooks, merged=True)
    if against:
        given = with_names([ModelSettings(path=path) for path in against])
        for path in against:
            _located(path, settings, hooks, merged=False)
        sources = [ModelReference(source.path, source.name, "--against") for source in given]
        found = Candidate(directory=directory, settings=settings, sources=sources)
        return found, evolve(validation, compare_with_sources=True)
    if settings is None:
        return Candidate(directory=directory), validation
    return merged_candidate(directory, settings), validation


def _located(model: str, settings: Settings | None, hooks: Hooks, *, merged: bool) -> Path:
    directory = hooks.models.locate_model(ModelReference(model, "MODEL", "MODEL")).directory
    if not os.path.lexists(directory):
        raise InputError(Problem("does not exist. Give the directory of a model.", model))
    try:
        check_loadable(directory, hooks, settings, merged=merged)
    except UnmeasurableError as error:
        raise InputError(*error.problems) from error
    return directory
