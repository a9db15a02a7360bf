"""What is validated, and against what: the merged model of a config, or what the command line names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from modelmerger.assembly import assemble
from modelmerger.checkpoint import ModelReference
from modelmerger.errors import ConfigError, InputError, Problem, UnmeasurableError
from modelmerger.naming import named, references
from modelmerger.registry import Registry
from modelmerger.resolve import resolve, validation_settings
from modelmerger.settings import ModelSettings, Settings, ValidationSettings
from modelmerger.subject import Place, Published, check_loadable_as_it_is

ALONE = ("validation",)


@frozen(kw_only=True)
class Candidate:
    """directory: of the merged model. adapter_base: where the model lies that it belongs to, if it is an adapter.

    held: its model and tokenizer, where the caller has them in memory.
    sources: what was merged. base: the base model, if there is one. device_map: where models are loaded to.
    """

    directory: Path
    adapter_base: Path | None = None
    held: tuple[Any, Any] | None = None
    sources: Sequence[ModelReference] = ()
    base: ModelReference | None = None
    device_map: str | dict[str, int | str] = "auto"

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
        merged = self.held or Published(self.directory, self.adapter_base)
        return {self.name: merged} | {reference.name: reference for reference in self._others}

    @property
    def _others(self) -> list[ModelReference]:
        return [*self.sources, *([self.base] if self.base is not None else [])]


def merged_candidate(
    directory: Path, settings: Settings, adapter_base: Path | None = None, held: tuple[Any, Any] | None = None
) -> Candidate:
    """The merged model of a config; its sources are the models of the config."""
    models, count = references(settings), len(settings.models)
    return Candidate(
        directory=directory,
        adapter_base=adapter_base,
        held=held,
        sources=models[:count],
        base=models[count] if len(models) > count else None,
        device_map=settings.options.device_map,
    )


def named_candidate(
    model: str, against: Sequence[str], config: Mapping[str, Any]
) -> tuple[Candidate, ValidationSettings]:
    """A model by its path or Hub id, and what is to be found out about it.

    Its sources are `against`, and then they are compared; else the models of the config, which is that of a merge, or holds
    `validation` alone. Raises `ConfigError`, and `InputError` for what is no model.
    """
    settings, validation = _of_config(config)
    directory = _located(model)
    if against:
        given = named([ModelSettings(path=path) for path in against])
        sources = [ModelReference(source.path, source.name, "--against") for source in given]
        return Candidate(directory=directory, sources=sources), evolve(validation, compare_with_sources=True)
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


def _located(model: str) -> Path:
    hooks = assemble(Registry.installed(), None)
    directory = Path(os.path.expanduser(hooks.locate_model(ModelReference(model, "MODEL", "MODEL")).path))
    if not os.path.lexists(directory):
        raise InputError(Problem("does not exist. Give the directory of a merged model.", model))
    try:
        check_loadable_as_it_is(directory)
    except UnmeasurableError as error:
        raise InputError(*error.problems) from error
    return directory
