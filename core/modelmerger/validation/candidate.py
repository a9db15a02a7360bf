"""What is validated, and against what: the merged model of a config, or what the command line names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from modelmerger.config.naming import named, references
from modelmerger.config.resolve import resolve, validation_settings
from modelmerger.hooks.assembly import assemble
from modelmerger.hooks.registry import Registry
from modelmerger.validation.loadable import check_loadable
from modelmerger.validation.models import Place
from modelmerger.values.checkpoint import ModelReference
from modelmerger.values.errors import ConfigError, InputError, Problem, UnmeasurableError
from modelmerger.values.settings import ModelSettings, Settings, ValidationSettings

ALONE = ("validation",)


@frozen(kw_only=True)
class Candidate:
    """directory: of the merged model. held: its model and tokenizer, where the caller has them in memory.

    sources: what was merged. base: the base model, if there is one. device_map: where models are loaded to.
    of_adapters: what the config says of adapters among them: their base, and the names of those that were merged.
    """

    directory: Path
    held: tuple[Any, Any] | None = None
    sources: Sequence[ModelReference] = ()
    base: ModelReference | None = None
    device_map: str | dict[str, int | str] = "auto"
    of_adapters: Mapping[str, Any] = field(factory=dict)

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

    @property
    def folding(self) -> dict[str, Mapping[str, Any]]:
        """How each model is folded if it is an adapter, by name."""
        return {self.name: _of_one(self.of_adapters)} | {source.name: self.of_adapters for source in self.sources}

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
        of_adapters=_of_adapters(settings),
    )


def _of_adapters(settings: Settings) -> dict[str, Any]:
    live = settings.live.get("base_model")
    names = {"adapter_names": list(settings.peft.adapter_names)} if settings.peft else {}
    if live is not None:
        return {"base_model": live, "peft_config": names}
    base = (settings.peft.base_model_path if settings.peft else None) or settings.base_model
    return {"peft_config": names | ({"base_model_path": base} if base else {})}


def named_candidate(
    model: str, against: Sequence[str], config: Mapping[str, Any]
) -> tuple[Candidate, ValidationSettings]:
    """A model by its path or Hub id, and what is to be found out about it.

    Its sources are `against`, and then they are compared; else the models of the config, which is that of a merge, or holds
    `validation` alone. Raises `ConfigError`, and `InputError` for what is no model.
    """
    settings, validation = _of_config(config)
    of_adapters = _of_adapters(settings) if settings is not None else {}
    directory = _located(model, _of_one(of_adapters))
    if against:
        given = named([ModelSettings(path=path) for path in against])
        sources = [ModelReference(source.path, source.name, "--against") for source in given]
        found = Candidate(directory=directory, sources=sources, of_adapters=of_adapters)
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


def _of_one(of_adapters: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the merged adapter, which has no name."""
    peft = {key: value for key, value in of_adapters.get("peft_config", {}).items() if key != "adapter_names"}
    return {**of_adapters, "peft_config": peft}


def _located(model: str, of_adapters: Mapping[str, Any]) -> Path:
    hooks = assemble(Registry.installed(), None)
    directory = Path(os.path.expanduser(hooks.locate_model(ModelReference(model, "MODEL", "MODEL")).path))
    if not os.path.lexists(directory):
        raise InputError(Problem("does not exist. Give the directory of a merged model.", model))
    try:
        check_loadable(directory, of_adapters)
    except UnmeasurableError as error:
        raise InputError(*error.problems) from error
    return directory
