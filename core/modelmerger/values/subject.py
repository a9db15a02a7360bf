"""What a validator looks at, as it sees it: a model, the others it may be held against, texts, prompts and answers."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from modelmerger.values.labels import LabelScores
from modelmerger.values.language_model import Answer, LanguageModel

Texts = Mapping[str, Sequence[str]]
"""Label → texts. Those whose label is not known stand under the empty name."""

Purpose = Literal["scoring", "prompting"]
"""What texts are for: models are scored on them, or answer them."""


class Subject(Protocol):
    """The model under test, with what it is measured on and the models it may be compared with."""

    @property
    def name(self) -> str:
        """The name that the report gives the model."""

    @property
    def model(self) -> LanguageModel:
        """The model under test, loaded when it is first asked for. Raises `UnmeasurableError` where it cannot be loaded."""

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

    def open(self, name: str) -> LanguageModel:
        """One of `sources`, or the base model. Raises `UnmeasurableError` where it cannot be loaded.

        One model is in memory at a time: the one before is let go, unless the caller of the validation holds it.
        """

    def answers(self) -> Mapping[str, Sequence[Answer]]:
        """What the model under test answers to every prompt, by the prompt's label. Generated once for all validators.

        Raises `UnmeasurableError` where the model cannot answer.
        """

    def score_labels(self, texts: Sequence[str]) -> LabelScores:
        """How probable each label is for each text, one row for each. Raises `UnmeasurableError` where no plugin scores labels."""
