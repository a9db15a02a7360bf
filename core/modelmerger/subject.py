"""What a validator looks at: a model, the others it may be held against, texts and prompts. One model is in memory at a time."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelmerger.dialects import DialectScores
from modelmerger.errors import InputError, UnmeasurableError
from modelmerger.language_model import Answer, LanguageModel
from modelmerger.settings import CoreOptions, ValidationSettings

Texts = Mapping[str, Sequence[str]]
"""Variety of Arabic → texts. Those whose variety is not known stand under the empty name."""


class Models:
    """Models by name: directories, or the merged model as the caller holds it. Opening one lets go of the one before."""

    def __init__(self, places: Mapping[str, Path | tuple[Any, Any]], batch_size: int) -> None:
        self._places, self._batch_size = places, batch_size
        self._current: LanguageModel | None = None

    def open(self, name: str) -> LanguageModel:
        """The model of that name. Raises `UnmeasurableError` where transformers cannot load it from its directory."""
        if self._current is None or self._current.name != name:
            self._current = None
            place = self._places[name]
            model, tokenizer = place if isinstance(place, tuple) else _loaded(name, place)
            self._current = LanguageModel(name, model.eval(), tokenizer, self._batch_size)
        return self._current


class Subject:
    """The model under test.

    name: of it. sources: names of the models that were merged, itself left out. base: name of the base model, or None. texts and
    prompts: by variety, as many as the settings say.
    """

    def __init__(
        self,
        name: str,
        models: Models,
        sources: Sequence[str],
        base: str | None,
        texts: Texts,
        prompts: Texts,
        settings: ValidationSettings,
        score_dialects: Callable[[Sequence[str]], DialectScores],
    ) -> None:
        self.name, self.sources, self.base = name, sources, base
        self.texts, self.prompts = texts, prompts
        self.score_dialects = score_dialects
        self._models, self._settings = models, settings
        self._answers: dict[str, list[Answer]] | None = None

    @property
    def model(self) -> LanguageModel:
        """The model under test, loaded when it is first asked for."""
        return self._models.open(self.name)

    def open(self, name: str) -> LanguageModel:
        """One of `sources`, or the base. The model under test is let go meanwhile, unless the caller holds it."""
        return self._models.open(name)

    def answers(self) -> Mapping[str, Sequence[Answer]]:
        """What the model under test answers to every prompt, by the prompt's variety. Generated once for all validators."""
        if self._answers is None:
            model = self.model
            prompts = [prompt for group in self.prompts.values() for prompt in group]
            settings = self._settings
            made = iter(model.answers(prompts, settings.new_tokens, settings.seed, self._templated(model)))
            self._answers = {dialect: [next(made) for _ in group] for dialect, group in self.prompts.items()}
        return self._answers

    def _templated(self, model: LanguageModel) -> bool:
        has = bool(getattr(model.tokenizer, "chat_template", None))
        if self._settings.chat_template is True and not has:
            raise UnmeasurableError(f"chat_template is true, and the tokenizer of {model.name} has no chat template")
        return has if self._settings.chat_template == "auto" else self._settings.chat_template is True


def _loaded(name: str, directory: Path) -> tuple[Any, Any]:
    """Model and tokenizer through transformers: from a local directory, from safetensors, without running code from it."""
    from modelmerger.returned import load_merged, load_tokenizer

    if not os.path.isdir(directory):
        raise UnmeasurableError(f"{name} is no directory, so transformers cannot load it: {directory}")
    if not (directory / "config.json").exists():
        raise UnmeasurableError(f"{name} has no config.json, so transformers cannot load it: {directory}")
    if not any(directory.glob("*.safetensors")):
        raise UnmeasurableError(f"{name} has no safetensors weights, and no others are loaded: {directory}")
    try:
        return load_merged(directory, CoreOptions(device_map="cpu"), directory), load_tokenizer(directory)
    except InputError as error:
        raise UnmeasurableError(f"{name} cannot be loaded: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UnmeasurableError(f"{name} cannot be loaded: {type(error).__name__}: {reason}") from error
