"""Models by name, loaded through transformers when they are asked for; one of them is in memory at a time."""

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import Factory, frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.output.scratch import Scratch
from modelmerger.validation.language_model import CausalLanguageModel, input_device
from modelmerger.validation.loadable import loadable
from modelmerger.validation.tokenizing import Proof
from modelmerger.values.errors import MergeError, UnmeasurableError
from modelmerger.values.model_reference import ModelReference
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.settings import Settings
from modelmerger.values.text import said_by

if TYPE_CHECKING:
    import torch

Place = ModelReference | tuple[Any, Any]
"""A model as the user names it, or model and tokenizer as the caller holds them, or the directory of the tokenizer."""


@frozen(eq=False, kw_only=True)
class LoadedModel:
    """An `OpenedModel`."""

    name: str
    """As in the report."""
    model: Any
    """A torch module in evaluation mode."""
    tokenizer: Any
    """Its tokenizer, or None."""
    batch_size: int
    """How many sequences `language` takes at a time."""
    proof: Proof = Factory(lambda self: Proof(self.name), takes_self=True)
    """What its tokenizer is known to end with in time."""

    @property
    def device(self) -> "torch.device":
        """Where the inputs of the model go."""
        return input_device(self.model)

    @property
    def language(self) -> CausalLanguageModel:
        """The model as one that predicts the next token. Raises `UnmeasurableError` where it does not."""
        return CausalLanguageModel(self.name, self.model, self.tokenizer, self.batch_size, self.proof)


class Models:
    """Models by name. Opening one lets go of the one before, unless the caller holds it.

    device_map: where they are loaded to, as transformers has it. settings: of the merge that they belong to, if there
    was one. merged: the name of the model that came out of it. texts: what their tokenizers will be given.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        batch_size: int,
        hooks: Hooks,
        device_map: str | dict[str, int | str] = "cpu",
        settings: Settings | None = None,
        merged: str = "",
        texts: Sequence[str] = (),
    ) -> None:
        self._places, self._batch_size, self._hooks = places, batch_size, hooks
        self._device_map, self._settings, self._merged = device_map, settings, merged
        self._texts = texts
        self._current: LoadedModel | None = None

    def place(self, name: str) -> str:
        """The path by which the user names a model; of one that the caller holds, its name."""
        place = self._places[name]
        return name if isinstance(place, tuple) else place.path

    def open(self, name: str) -> LoadedModel:
        """The model of that name, in evaluation mode. Raises `UnmeasurableError` where it cannot be loaded or run."""
        if self._current is None or self._current.name != name:
            if self._current is not None:
                self._current = None
                gc.collect()  # a module refers to itself, and the command line has the collector off
            place, proof = self._places[name], Proof(name)
            model, tokenizer = place if isinstance(place, tuple) else self._loaded(name, place, proof)
            _check_module(name, model)
            if isinstance(tokenizer, Path):
                tokenizer = self._tokenizer(name, tokenizer, proof)
            proof.of_texts(tokenizer, self._texts)
            self._current = LoadedModel(
                name=name, model=model.eval(), tokenizer=tokenizer, batch_size=self._batch_size, proof=proof
            )
        return self._current

    def _loaded(self, name: str, reference: ModelReference, proof: Proof) -> tuple[Any, Any]:
        """Model and tokenizer through transformers, from safetensors in a local directory, without running its code."""
        if reference.source is not None:
            return reference.source, None
        if self._settings is not None and reference.where in self._settings.merges:
            raise UnmeasurableError(f"{name} is a merge that is written nowhere, so it cannot be loaded")
        from modelmerger.validation.transformers_model import load_merged, load_tokenizer

        with _unloadable(name):
            located, hooks, is_merged = self._hooks.models.locate_model(reference), self._hooks, name == self._merged
            with Scratch(None) as scratch, _no_bars():
                target = scratch.path / "materialised"
                directory = loadable(located.directory, hooks, self._settings, target, merged=is_merged)
                options = CoreOptions(device_map=self._device_map)
                model = load_merged(directory, options, scratch.path / "offload", hooks)
                tokenizer = load_tokenizer(directory, proof, self._texts)
                scratch.goes_with(model)
            return model, tokenizer

    def _tokenizer(self, name: str, directory: Path, proof: Proof) -> Any:
        from modelmerger.validation.transformers_model import load_tokenizer

        with _unloadable(name):
            return load_tokenizer(directory, proof, self._texts)


@contextlib.contextmanager
def _unloadable(name: str) -> Iterator[None]:
    """Whatever is raised is that the model cannot be loaded, and so not measured."""
    try:
        yield
    except MergeError as error:
        raise UnmeasurableError(f"{name} cannot be loaded: {error.problems[0]}") from error
    except Exception as error:
        reason = " ".join(said_by(error).split())[:300]
        raise UnmeasurableError(f"{name} cannot be loaded: {type(error).__name__}: {reason}") from error


def _check_module(name: str, model: Any) -> None:
    """What the caller holds may be a mapping of tensors, or a checkpoint that no config says the class of."""
    import torch

    if not isinstance(model, torch.nn.Module):
        raise UnmeasurableError(f"{name} is a {type(model).__name__} in memory, not a model that can be run")


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
