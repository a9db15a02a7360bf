"""What a validator looks at: a model, the others it may be held against, texts and prompts. One model is in memory at a time."""

import contextlib
import gc
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from modelmerger.checkpoint import Location, ModelReference
from modelmerger.dialects import DialectScores
from modelmerger.errors import MergeError, Problem, UnmeasurableError
from modelmerger.language_model import Answer, LanguageModel
from modelmerger.loading import as_given, read_beside
from modelmerger.scratch import Scratch
from modelmerger.settings import CoreOptions, ValidationSettings

Texts = Mapping[str, Sequence[str]]
"""Variety of Arabic → texts. Those whose variety is not known stand under the empty name."""


Purpose = Literal["scoring", "prompting"]
"""What texts are for: models are scored on them, or answer them."""


@frozen
class Published:
    """What a merge wrote. base: where the model lies that it belongs to, if it is an adapter."""

    directory: Path
    base: Path | None = None


Place = Published | ModelReference | tuple[Any, Any]
"""The merged model, a model as the user names it, or model and tokenizer as the caller holds them."""


class Models:
    """Models by name. Opening one lets go of the one before, unless the caller holds it.

    locate: says where a model that is not held lies. device_map: where it is loaded to, as transformers has it.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        batch_size: int,
        locate: Callable[[ModelReference], Location] = as_given,
        device_map: str | dict[str, int | str] = "cpu",
    ) -> None:
        self._places, self._batch_size = places, batch_size
        self._locate, self._device_map = locate, device_map
        self._current: LanguageModel | None = None

    def open(self, name: str) -> LanguageModel:
        """The model of that name. Raises `UnmeasurableError` where transformers cannot load it from its directory."""
        if self._current is None or self._current.name != name:
            if self._current is not None:
                self._current = None
                gc.collect()  # a module refers to itself, and the command line has the collector off
            place = self._places[name]
            model, tokenizer = place if isinstance(place, tuple) else self._loaded(name, place)
            self._current = LanguageModel(name, model.eval(), tokenizer, self._batch_size)
        return self._current

    def _loaded(self, name: str, place: Published | ModelReference) -> tuple[Any, Any]:
        """Model and tokenizer through transformers: from a local directory, from safetensors, without running code from it."""
        if isinstance(place, ModelReference) and place.source is not None:
            return place.source, None
        try:
            from modelmerger.returned import load_merged, load_tokenizer

            if isinstance(place, ModelReference):
                place = Published(Path(os.path.expanduser(self._locate(place).path)))
            model_directory = place.base or place.directory
            check_loadable_as_it_is(model_directory)
            with Scratch(None) as scratch, _no_bars():
                options = CoreOptions(device_map=self._device_map)
                model = load_merged(place.directory, options, scratch.path / "offload", place.base)
                scratch.goes_with(model)
            return model, load_tokenizer(model_directory)
        except MergeError as error:
            raise UnmeasurableError(f"{name} cannot be loaded: {error.problems[0]}") from error
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UnmeasurableError(f"{name} cannot be loaded: {type(error).__name__}: {reason}") from error


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

    @property
    def answered(self) -> bool:
        """Whether the model has been asked."""
        return self._answers is not None

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


def check_loadable_as_it_is(directory: Path) -> None:
    """Raises `UnmeasurableError` for what transformers cannot load, or would run code for."""
    if reason := _unloadable(directory):
        raise UnmeasurableError(Problem(reason, str(directory)))


def _unloadable(directory: Path) -> str:
    if not directory.is_dir():
        return "is no directory, and transformers loads models from directories alone."
    if (directory / "adapter_config.json").exists():
        return "is an adapter, and full models alone are measured."
    config = read_beside(directory, "config.json")
    if config is None:
        return "has no config.json, so transformers cannot load it."
    if not any(directory.glob("*.safetensors")):
        return "has no safetensors weights, and no others are loaded."
    try:
        kernels = sorted(_kernels(json.loads(config)))
    except (ValueError, RecursionError):
        return "has a config.json that is no JSON."
    return f"wants code from a repository ({', '.join(kernels)}), and none is run." if kernels else ""


def _kernels(config: Any) -> Iterator[str]:
    """What a config says of attention or experts that transformers would download and run: `org/name`."""
    if isinstance(config, list):
        for item in config:
            yield from _kernels(item)
    elif isinstance(config, Mapping):
        for key, value in config.items():
            if key.lstrip("_").startswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
                yield f"{key}: {value}"
            yield from _kernels(value)
