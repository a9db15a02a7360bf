"""What a validator looks at, as it sees it: a model, the others it may be compared with, texts, prompts and answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from modelmerger.values.labels import LabelScores
from modelmerger.values.language_model import Answer, LanguageModel

Texts = Mapping[str, Sequence[str]]
"""Label → texts. Those whose label is not known stand under the empty name."""

Purpose = Literal["scoring", "prompting"]
"""What texts are for: models are scored on them, or answer them."""


class OpenedModel(Protocol):
    """A model of any kind, with its tokenizer."""

    @property
    def name(self) -> str:
        """The name that the report gives the model."""

    @property
    def model(self) -> Any:
        """The transformers model, in evaluation mode; of a source given in Python, the module itself.

        Its weights are in their own dtype and on the devices that `device_map` says.
        """

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer, or None where the model has none."""

    @property
    def device(self) -> Any:
        """The torch device that inputs of the model go to; not always that of its weights, which may stay on the disk."""

    @property
    def language(self) -> LanguageModel:
        """The model as one that predicts the next token of a text.

        Raises `UnmeasurableError` for a model that does not (an encoder, or an encoder with a decoder), and where there is no
        tokenizer.
        """


class Subject(OpenedModel, Protocol):
    """The model under test, with what it is measured on and the models it may be compared with.

    It is loaded when `model`, `tokenizer`, `device`, `language` or `answers` is first asked for, and these raise `UnmeasurableError` where it
    cannot be loaded.
    """

    @property
    def sources(self) -> Sequence[str]:
        """The names of the models that were merged; the model under test is left out."""

    @property
    def base(self) -> str | None:
        """The name of the base model, if the merge has one."""

    @property
    def texts(self) -> Texts:
        """What to score the model on: as many texts as the settings say."""

    @property
    def prompts(self) -> Texts:
        """What to ask the model: as many prompts as the settings say."""

    def open(self, name: str) -> OpenedModel:
        """One of `sources`, or the base model. Raises `UnmeasurableError` where it cannot be loaded.

        One model is in memory at a time: the model before is let go, and is loaded again when it is asked for, so keep nothing of
        it but what was computed with it.
        """

    def answers(self) -> Mapping[str, Sequence[Answer]]:
        """What the model under test answers to every prompt, by the prompt's label. Generated once for all validators.

        Raises `UnmeasurableError` where the model does not predict the next token of a text.
        """

    def score_labels(self, texts: Sequence[str]) -> LabelScores:
        """How probable each label is for each text, one row for each. Raises `UnmeasurableError` where no plugin scores labels."""
