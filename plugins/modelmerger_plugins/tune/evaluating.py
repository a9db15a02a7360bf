"""Measures the merge at any numbers: its losses on lines, and their derivatives where the strategy is linear."""

import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from modelmerger import ConfigError

from modelmerger_plugins.tune.asked import Preparing
from modelmerger_plugins.tune.coefficients import Coefficients
from modelmerger_plugins.tune.measured import Lines, Nats
from modelmerger_plugins.tune.opened import Opened

if TYPE_CHECKING:
    from modelmerger_plugins.tune.texts import Lines as Written


class Evaluator(Protocol):
    """What a search asks."""

    def nats(self, lines: Lines, vector: Sequence[float]) -> Nats:
        """The nats of each line under the merge at these numbers."""

    def stretched_nats(self, lines: Lines, vector: Sequence[float], factor: float) -> Nats:
        """The same where all that the merge changes of its base model is multiplied by a factor."""

    def source_nats(self, lines: Lines, model: int) -> Nats:
        """The nats of each line under a model that is merged, by its number in the plan."""


class ByCoefficients:
    """The merge as a function of coefficients, streamed from the checkpoints."""

    def __init__(self, opened: Opened, folder: Path | None = None, preparing: Preparing | None = None) -> None:
        """folder: of the study, where what the merge is a sum of is kept meanwhile; None for a temporary place.

        preparing: told while that is made. Raises `ConfigError` where the strategy is not linear, or transformers has
        no such language model.
        """
        import torch

        from modelmerger_plugins.tune.gradient.factored import with_factors
        from modelmerger_plugins.tune.gradient.losses import Losses
        from modelmerger_plugins.tune.gradient.places import new_place
        from modelmerger_plugins.tune.gradient.skeleton import Skeleton
        from modelmerger_plugins.tune.gradient.sources import Source
        from modelmerger_plugins.tune.gradient.splitting import Split
        from modelmerger_plugins.tune.gradient.terms import SplitSource

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        search = opened.read.tune.search
        dtype = getattr(torch, search.dtype)
        place = new_place(folder)
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        split = Split.of(opened, dtype, place, preparing)
        self.coefficients = Coefficients.of_opened(opened, split.weigh)
        """What each tensor is made of."""
        inputs = self.coefficients.inputs(opened.checkpoints)
        sources = Source.all_of(opened.plan, inputs, opened.checkpoints, dtype, device)
        of_terms = {name: SplitSource.of(sources[name], terms) for name, terms in split.terms.items()}
        sources = self._sources = with_factors({**sources, **of_terms}, place)
        self._losses = Losses(Skeleton(opened.directory, sources, dtype), first_token(opened), search.batch_tokens)

    def nats(self, lines: Lines, vector: Sequence[float]) -> Nats:
        """The nats of each line under the merge at these numbers."""
        return self._losses.nats(lines, self.coefficients.at(vector).values)

    def slopes(self, lines: Lines, vector: Sequence[float]) -> tuple[Nats, dict[str, np.ndarray]]:
        """The nats of each line; and for each split, the derivatives of its nats a token: (coordinates,)."""
        at = self.coefficients.at(vector)
        nats, found = self._losses.slopes(lines, at.values)
        return nats, {split: at.pulled(slopes) for split, slopes in found.items()}

    def stretched_nats(self, lines: Lines, vector: Sequence[float], factor: float) -> Nats:
        """The same where all that the merge changes of its base model, the last input, is multiplied by a factor."""
        values = self.coefficients.at(vector).values
        return self._losses.nats(lines, {name: _stretched(own, factor) for name, own in values.items()})

    def source_nats(self, lines: Lines, model: int) -> Nats:
        """The nats of each line under a model that is merged."""
        return self._losses.nats(lines, {name: source.alone(model) for name, source in self._sources.items()})


def _stretched(coefficients: np.ndarray, factor: float) -> np.ndarray:
    """θ_base + factor·(θ − θ_base). coefficients: as `Source` has them, with the base as the last input."""
    found = factor * coefficients
    found[-1] += 1.0 - factor
    return found


def first_token(opened: Opened) -> int:
    """The token that a text begins with: the tokenizer's first one, or else its last one."""
    tokenizer = tokenizer_of(opened)
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if found is None:
        raise ConfigError("the tokenizer has neither a token that begins a text nor one that ends it.")
    return int(found)


def tokenizer_of(opened: Opened) -> "Tokenizer":
    """The tokenizer of the merged model. Raises `ConfigError`."""
    from transformers import AutoTokenizer

    try:
        found: Tokenizer = AutoTokenizer.from_pretrained(opened.directory)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the tokenizer in {opened.directory} cannot be loaded: {str(error)[:100]}") from error
    return found


class Tokenizer(Protocol):
    """What is used of a tokenizer of transformers."""

    bos_token_id: int | None
    eos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The tokens of a text."""


def encoded(lines: "Written", tokenizer: Tokenizer) -> Lines:
    """Lines as tokens. Lines without a token are left out."""
    tokens = {
        split: [found for text in texts if (found := list(tokenizer.encode(text, add_special_tokens=False)))]
        for split, texts in lines.items()
    }
    return Lines(tokens, {split: sum(len(text.encode()) for text in texts) for split, texts in lines.items()})
