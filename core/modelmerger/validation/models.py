"""Models by name, loaded through transformers when they are asked for; one of them is in memory at a time."""

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from modelmerger.inputs.loading import as_given
from modelmerger.output.scratch import Scratch
from modelmerger.validation.language_model import CausalLanguageModel, input_device
from modelmerger.validation.loadable import full_model
from modelmerger.values.checkpoint import Location, ModelReference
from modelmerger.values.errors import MergeError, UnmeasurableError
from modelmerger.values.settings import CoreOptions

if TYPE_CHECKING:
    import torch

Place = ModelReference | tuple[Any, Any]
"""A model as the user names it, or model and tokenizer as the caller holds them."""


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

    @property
    def device(self) -> "torch.device":
        """Where the inputs of the model go."""
        return input_device(self.model)

    @property
    def language(self) -> CausalLanguageModel:
        """The model as one that predicts the next token. Raises `UnmeasurableError` where it does not."""
        return CausalLanguageModel(self.name, self.model, self.tokenizer, self.batch_size)


class Models:
    """Models by name. Opening one lets go of the one before, unless the caller holds it.

    locate: says where a model that is not held lies. device_map: where it is loaded to, as transformers takes it.
    loadable: where transformers can load a model from, given its name, its directory, and a path to make a full model at.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        batch_size: int,
        locate: Callable[[ModelReference], Location] = as_given,
        device_map: str | dict[str, int | str] = "cpu",
        loadable: Callable[[str, Path, Path], Path] = full_model,
    ) -> None:
        self._places, self._batch_size = places, batch_size
        self._locate, self._device_map, self._loadable = locate, device_map, loadable
        self._current: LoadedModel | None = None

    def open(self, name: str) -> LoadedModel:
        """The model of that name, in evaluation mode. Raises `UnmeasurableError` where it cannot be loaded or run."""
        if self._current is None or self._current.name != name:
            if self._current is not None:
                self._current = None
                gc.collect()  # a module refers to itself, and the command line has the collector off
            place = self._places[name]
            model, tokenizer = place if isinstance(place, tuple) else self._loaded(name, place)
            _check_module(name, model)
            self._current = LoadedModel(name=name, model=model.eval(), tokenizer=tokenizer, batch_size=self._batch_size)
        return self._current

    def _loaded(self, name: str, reference: ModelReference) -> tuple[Any, Any]:
        """Model and tokenizer through transformers: from a local directory, from safetensors, without running code from it."""
        if reference.source is not None:
            return reference.source, None
        try:
            from modelmerger.validation.transformers_model import load_merged, load_tokenizer

            directory = Path(os.path.expanduser(self._locate(reference).path))
            with Scratch(None) as scratch, _no_bars():
                directory = self._loadable(name, directory, scratch.path / "folded")
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
