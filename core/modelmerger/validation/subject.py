"""The model under test and the others it may be held against, of which one is in memory at a time."""

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modelmerger.inputs.loading import as_given
from modelmerger.output.scratch import Scratch
from modelmerger.validation.language_model import CausalLanguageModel
from modelmerger.validation.loadable import loadable
from modelmerger.values.checkpoint import Location, ModelReference
from modelmerger.values.errors import MergeError, UnmeasurableError
from modelmerger.values.labels import LabelScores
from modelmerger.values.language_model import Answer
from modelmerger.values.settings import CoreOptions, ValidationSettings
from modelmerger.values.subject import Texts

Place = ModelReference | tuple[Any, Any]
"""A model as the user names it, or model and tokenizer as the caller holds them."""


class Models:
    """Models by name. Opening one lets go of the one before, unless the caller holds it.

    locate: says where a model that is not held lies. device_map: where it is loaded to, as transformers has it.
    folding: what the config of a merge says, besides, of a model that is an adapter: its base, and its names.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        batch_size: int,
        locate: Callable[[ModelReference], Location] = as_given,
        device_map: str | dict[str, int | str] = "cpu",
        folding: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        self._places, self._batch_size, self._folding = places, batch_size, folding
        self._locate, self._device_map = locate, device_map
        self._current: CausalLanguageModel | None = None

    def open(self, name: str) -> CausalLanguageModel:
        """The model of that name. Raises `UnmeasurableError` where transformers cannot load it from its directory."""
        if self._current is None or self._current.name != name:
            if self._current is not None:
                self._current = None
                gc.collect()  # a module refers to itself, and the command line has the collector off
            place = self._places[name]
            model, tokenizer = place if isinstance(place, tuple) else self._loaded(name, place)
            self._current = CausalLanguageModel(name, model.eval(), tokenizer, self._batch_size)
        return self._current

    def _loaded(self, name: str, reference: ModelReference) -> tuple[Any, Any]:
        """Model and tokenizer through transformers: from a local directory, from safetensors, without running code from it."""
        if reference.source is not None:
            return reference.source, None
        try:
            from modelmerger.validation.transformers_model import load_merged, load_tokenizer

            directory = Path(os.path.expanduser(self._locate(reference).path))
            with Scratch(None) as scratch, _no_bars():
                directory = loadable(directory, self._folding.get(name, {}), scratch.path / "folded")
                options = CoreOptions(device_map=self._device_map)
                model = load_merged(directory, options, scratch.path / "offload")
                tokenizer = load_tokenizer(directory)
                scratch.goes_with(model)
            return model, tokenizer
        except MergeError as error:
            raise UnmeasurableError(f"{name} cannot be loaded: {error.problems[0]}") from error
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UnmeasurableError(f"{name} cannot be loaded: {type(error).__name__}: {reason}") from error


class MeasuredModel:
    """A `Subject`: what its parts are is said there."""

    def __init__(
        self,
        name: str,
        models: Models,
        sources: Sequence[str],
        base: str | None,
        texts: Texts,
        prompts: Texts,
        settings: ValidationSettings,
        score_labels: Callable[[Sequence[str]], LabelScores],
    ) -> None:
        self.name, self.sources, self.base = name, sources, base
        self.texts, self.prompts = texts, prompts
        self.score_labels = score_labels
        self._models, self._settings = models, settings
        self._answers: dict[str, list[Answer]] | None = None

    @property
    def model(self) -> CausalLanguageModel:
        """The model under test, loaded when it is first asked for."""
        return self._models.open(self.name)

    def open(self, name: str) -> CausalLanguageModel:
        """One of `sources`, or the base. The model under test is let go meanwhile, unless the caller holds it."""
        return self._models.open(name)

    @property
    def answered(self) -> bool:
        """Whether the model has been asked."""
        return self._answers is not None

    def answers(self) -> Mapping[str, Sequence[Answer]]:
        """What the model under test answers to every prompt, by the prompt's label. Generated once for all validators."""
        if self._answers is None:
            model = self.model
            prompts = [prompt for group in self.prompts.values() for prompt in group]
            settings = self._settings
            made = iter(model.answers(prompts, settings.new_tokens, settings.seed, self._templated(model)))
            self._answers = {label: [next(made) for _ in group] for label, group in self.prompts.items()}
        return self._answers

    def _templated(self, model: CausalLanguageModel) -> bool:
        has = bool(getattr(model.tokenizer, "chat_template", None))
        if self._settings.chat_template is True and not has:
            raise UnmeasurableError(f"chat_template is true, and the tokenizer of {model.name} has no chat template")
        return has if self._settings.chat_template == "auto" else self._settings.chat_template is True


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Transformers' own progress bars are off: a validation has one of its own."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # as above
