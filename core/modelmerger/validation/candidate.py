"""What is validated, and against what: the merged model of a config, or what the command line names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from modelmerger.config.naming import named, references
from modelmerger.config.resolve import resolve, validation_settings
from modelmerger.hooks.assembly import assemble
from modelmerger.hooks.registry import Registry
from modelmerger.validation.adapters import materialise
from modelmerger.validation.loadable import Materialise, check_loadable, loadable
from modelmerger.validation.models import Place
from modelmerger.values.checkpoint import ModelReference
from modelmerger.values.errors import ConfigError, InputError, Problem, UnmeasurableError
from modelmerger.values.settings import ModelSettings, Settings, ValidationSettings

ALONE = ("validation",)


@frozen(kw_only=True)
class Candidate:
    """A merged model, and the models that it may be compared with."""

    directory: Path
    """Of the merged model."""
    held: tuple[Any, Any] | None = None
    """The merged model and its tokenizer, where the caller has them in memory."""
    sources: Sequence[ModelReference] = ()
    """The models that were merged."""
    base: ModelReference | None = None
    """The base model, if there is one."""
    device_map: str | dict[str, int | str] = "auto"
    """Where models are loaded to, as transformers takes it."""
    settings: Settings | None = None
    """The config of the merge, if there is one."""

    @property
    def name(self) -> str:
        """The last part of the directory; marked where another model is named so."""
        name = self.directory.resolve().name
        taken = {reference.name for reference in self._others}
        while name in taken:
            name = f"{name} (merged)"
        return name

    @property
    def places(self) -> dict[str, Place]:
        """Every model by name."""
        merged = self.held or ModelReference(str(self.directory), self.name, "MODEL")
        return {self.name: merged} | {reference.name: reference for reference in self._others}

    def loadable(self, name: str, directory: Path, target: Path, materialise: Materialise) -> Path:
        """Where transformers can load the model of that name from, which lies in `directory`; see `loadable`."""
        of_merge = name == self.name or any(source.name == name for source in self.sources)
        return loadable(directory, name == self.name, self.settings if of_merge else None, target, materialise)

    @property
    def _others(self) -> list[ModelReference]:
        return [*self.sources, *([self.base] if self.base is not None else [])]


def merged_candidate(directory: Path, settings: Settings, held: tuple[Any, Any] | None = None) -> Candidate:
    """The merged model of a config; its sources are the models of the config."""
    models, count = references(settings), len(settings.models)
    return Candidate(
        directory=directory,
        held=held,
        sources=models[:count],
        base=models[count] if len(models) > count else None,
        device_map=settings.options.device_map,
        settings=settings,
    )


def named_candidate(
    model: str, against: Sequence[str], config: Mapping[str, Any]
) -> tuple[Candidate, ValidationSettings]:
    """A model by its path or Hub id, and what is to be found out about it.

    Its sources are `against`, and then they are compared; else they are the models of the config. That is the config of a merge, or
    holds `validation` alone. Raises `ConfigError`, and `InputError` for what is not a model.
    """
    settings, validation = _of_config(config)
    directory = _located(model, settings)
    if against:
        given = named([ModelSettings(path=path) for path in against])
        sources = [ModelReference(source.path, source.name, "--against") for source in given]
        found = Candidate(directory=directory, sources=sources, settings=settings)
        return found, evolve(validation, compare_with_sources=True)
    if settings is None:
        return Candidate(directory=directory), validation
    return merged_candidate(directory, settings), validation


def _of_config(config: Mapping[str, Any]) -> tuple[Settings | None, ValidationSettings]:
    if config.keys() - set(ALONE):
        settings, _ = resolve(config)
        return settings, settings.validation or ValidationSettings()
    problems: list[Problem] = []
    validation = validation_settings(config.get("validation"), Registry.installed(), problems)
    if problems:
        raise ConfigError(*problems)
    return None, validation or ValidationSettings()


def _located(model: str, settings: Settings | None) -> Path:
    hooks = assemble(Registry.installed(), None)
    directory = Path(os.path.expanduser(hooks.locate_model(ModelReference(model, "MODEL", "MODEL")).path))
    if not os.path.lexists(directory):
        raise InputError(Problem("does not exist. Give the directory of a merged model.", model))
    try:
        check_loadable(directory, True, settings, materialise)
    except UnmeasurableError as error:
        raise InputError(*error.problems) from error
    return directory
